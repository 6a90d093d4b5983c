//! What a driver refuses, streams, events, graphs, and faults on demand.

use crate::PTX;
use crate::api::*;
use std::ptr::null_mut;
use std::time::Duration;

fn add_kernel() -> Handle {
    start().expect("a context");
    function(load(PTX).expect("a module"), "add").expect("a kernel")
}

#[test]
fn modules_that_the_driver_does_not_know_are_refused() {
    with("refusals::modules_that_the_driver_does_not_know_are_refused", &[], || {
        start().expect("a context");
        let table = [
            ((".version 5.0", ".version 6.5"), Ok(())),
            (
                (".version 5.0", ".version 7.0"),
                Err((218, "line 2; fatal   : Unsupported .version 7.0; current version is '6.5'")),
            ),
            (
                (".version 5.0", ".version 4.2"),
                Err((218, "line 3; fatal   : PTX .version 4.2 does not support .target sm_62")),
            ),
            ((".target sm_62", ".target sm_53"), Ok(())),
            (
                (".target sm_62", ".target sm_72"),
                Err((218, "PTX .version 5.0 does not support .target sm_72")),
            ),
            (
                (".version 5.0\n.target sm_62", ".version 6.3\n.target sm_75"),
                Err((218, "SM version specified by .target is higher")),
            ),
            (("add.rn.f32", "add.rp.f32"), Err((218, "unknown instruction \"add.rp.f32\""))),
            (("mul.wide.u32", "mul.wide.u33"), Err((218, "unknown instruction \"mul.wide.u33\""))),
            (
                ("ld.global.nc.b32", "ld.global.nc.L1.b32"),
                Err((218, "unknown instruction \"ld.global.nc.L1.b32\"")),
            ),
            (("bra \t$L__BB0_2", "bra \t$L__BB0_3"), Err((218, "unknown label $L__BB0_3"))),
            (("add.rn.f32 \t%r8", "add.rn.f32 \t%rd8"), Err((218, "class B32"))),
            (("add.rn.f32 \t%r8, %r6", "add.rn.f32 \t%r8, %q6"), Err((218, "unknown operand \"%q6\""))),
            (
                ("add.rn.f32 \t%r8, %r6, %r7", "add.rn.f32 \t%r8, %r6"),
                Err((218, "takes 2 source operands, found 1")),
            ),
            (("[add_param_3]", "[add_param_4]"), Err((218, "takes [parameter]"))),
            ((".b64 	%rd<12>", ".b65 	%rd<12>"), Err((218, "unknown type \".b65\""))),
            ((".maxntid 64, 1, 1", ".maxntid64, 1, 1"), Err((218, "unknown directive"))),
            (("tile_a[1024]", "tile_a[65536]"), Err((218, "more than 49152"))),
        ];
        for ((from, to), want) in table {
            assert!(PTX.contains(from), "{from}");
            let found = load(&PTX.replacen(from, to, 1)).map(drop);
            match (want, &found) {
                (Ok(()), Ok(())) => {}
                (Err((code, message)), Err((found, log))) if *found == code && log.contains(message) => {}
                _ => panic!("{from} to {to}: {found:?}"),
            }
        }
    });
}

#[test]
fn newer_drivers_name_an_unsupported_version() {
    with("refusals::newer_drivers_name_an_unsupported_version", &[("CUDA_STANDIN_DRIVER", "11040")], || {
        start().expect("a context");
        assert!(load(&PTX.replace(".version 5.0", ".version 7.4")).is_ok());
        let found = load(&PTX.replace(".version 5.0", ".version 7.5"));
        assert_eq!(found.map_err(|(code, _)| code), Err(222));
    });
}

#[test]
fn a_newer_device_runs_older_modules() {
    with("refusals::a_newer_device_runs_older_modules", &[("CUDA_STANDIN_ARCH", "sm_87")], || {
        let kernel = add_kernel();
        // SAFETY: as the driver's documentation asks for, here and below.
        let [major, minor] =
            [75, 76].map(|number| unsafe { result(|place| cuDeviceGetAttribute(place, number, 0)) });
        assert_eq!((major, minor), (Ok(8), Ok(7)));
        let attribute = |number| unsafe { result(|place| cuFuncGetAttribute(place, number, kernel)) };
        assert_eq!((attribute(0), attribute(5), attribute(6)), (Ok(64), Ok(50), Ok(87)));
        // Registers are not known.
        assert_eq!(attribute(4), Err(1));
    });
}

#[test]
fn memory_ends() {
    with("refusals::memory_ends", &[("CUDA_STANDIN_MEMORY_MIB", "3")], || {
        start().expect("a context");
        let allocate = |bytes| unsafe { result(|place| cuMemAlloc_v2(place, bytes)) };
        let first = allocate(2 << 20).expect("enough memory");
        assert_eq!(allocate(2 << 20), Err(2));
        assert!(
            reports()
                .contains("failed to allocate 2097152 bytes of device memory: 1048576 of 3145728 are free")
        );
        assert_eq!(allocate(0), Err(1));
        let mut info = [0usize; 2];
        let [free, total] = &mut info;
        assert_eq!(unsafe { cuMemGetInfo_v2(free, total) }, 0);
        assert_eq!(info, [1 << 20, 3 << 20]);
        assert_eq!(unsafe { cuMemFree_v2(first + 1) }, 1);
        assert_eq!(unsafe { cuMemFree_v2(first) }, 0);
        let second = allocate(3 << 20).expect("enough memory");
        assert_ne!(first, second, "an address is never used again");
        assert_eq!(download::<u32>(first, 1), Err(1), "freed memory is gone");
        // What nobody wrote is NaN.
        assert!(download::<f32>(second, 4).expect("no fault").iter().all(|value| value.is_nan()));
    });
}

#[test]
fn handles_of_a_reset_context_are_refused() {
    with("refusals::handles_of_a_reset_context_are_refused", &[], || {
        let kernel = add_kernel();
        let stream = unsafe { result(|place| cuStreamCreate(place, 1)) }.expect("a stream");
        assert_eq!(unsafe { cuDevicePrimaryCtxSetFlags(0, 4) }, 708, "the context is active");
        assert_eq!(unsafe { cuDevicePrimaryCtxReset(0) }, 0);
        assert_eq!(unsafe { cuStreamSynchronize(stream) }, 709);
        assert_eq!(unsafe { cuDevicePrimaryCtxSetFlags(0, 4) }, 0);
        start().expect("a fresh context");
        assert_eq!(unsafe { cuStreamSynchronize(stream) }, 400);
        assert_eq!(launch(kernel, [1, 1, 1], [64, 1, 1], &[0; 4], 0), 400);
        let module = load(PTX).expect("a module");
        let kernel = function(module, "add").expect("a kernel");
        assert_eq!(function(module, "subtract"), Err(500));
        assert!(reports().contains(
            "the module has no kernel subtract; it has add, matmul, collatz, spaces, count, choose"
        ));
        assert_eq!(unsafe { cuModuleUnload(module) }, 0);
        assert_eq!(launch(kernel, [1, 1, 1], [64, 1, 1], &[0; 4], 0), 400);
    });
}

#[test]
fn calls_without_a_context_are_refused() {
    with("refusals::calls_without_a_context_are_refused", &[], || {
        assert_eq!(unsafe { result(|place| cuMemAlloc_v2(place, 4)) }, Err(3), "cuInit comes first");
        assert_eq!(unsafe { cuInit(0) }, 0);
        assert_eq!(unsafe { result(|place| cuMemAlloc_v2(place, 4)) }, Err(201));
        start().expect("a context");
        let other = std::thread::spawn(|| unsafe { result(|place| cuMemAlloc_v2(place, 4)) });
        assert_eq!(other.join().expect("no panic"), Err(201), "a context is current on one thread");
    });
}

/// Sums of vectors on a stream, which are enqueued while the stream still works.
fn sums(stream: Handle, kernel: Handle) -> (u64, Vec<f32>) {
    let values: Vec<f32> = (0u8..250).map(f32::from).collect();
    let (a, b) = (upload(&values), upload(&vec![0f32; 250]));
    for _ in 0..20 {
        assert_eq!(launch(kernel, [4, 1, 1], [64, 1, 1], &[a, b, b, 250], stream), 0);
    }
    (b, values.iter().map(|value| value * 20.0).collect())
}

#[test]
fn streams_work_in_order_and_events_order_streams() {
    with("refusals::streams_work_in_order_and_events_order_streams", &[], || {
        // `b` is source and result, which `ld.global` allows.
        let kernel = add_kernel();
        let [one, two] =
            [0, 1].map(|flags| unsafe { result(|place| cuStreamCreate(place, flags)) }.expect("a stream"));
        let [begin, end] =
            [(); 2].map(|()| unsafe { result(|place| cuEventCreate(place, 0)) }.expect("an event"));
        assert_eq!(
            unsafe { result(|place| cuEventElapsedTime(place, begin, end)) },
            Err(400),
            "never recorded"
        );
        unsafe {
            assert_eq!(cuEventRecord(begin, two), 0);
            let (b, want) = sums(two, kernel);
            assert_eq!(cuEventRecord(end, two), 0);
            assert_eq!(cuStreamWaitEvent(one, end, 0), 0);
            let mut found = vec![0f32; 250];
            assert_eq!(cuMemcpyDtoHAsync_v2(found.as_mut_ptr().cast(), b, 1000, one), 0);
            assert_eq!(cuStreamSynchronize(one), 0);
            assert_eq!(found, want);
            assert_eq!((cuStreamQuery(one), cuEventSynchronize(end)), (0, 0));
            assert!(result(|place| cuEventElapsedTime(place, begin, end)).expect("both recorded") > 0.0);
            assert_eq!((cuStreamDestroy_v2(one), cuStreamSynchronize(one)), (0, 400));
            assert_eq!(cuCtxSynchronize(), 0);
        }
    });
}

#[test]
fn a_graph_repeats_what_was_captured() {
    with("refusals::a_graph_repeats_what_was_captured", &[], || unsafe {
        let kernel = add_kernel();
        let stream = result(|place| cuStreamCreate(place, 1)).expect("a stream");
        let (one, sum) = (upload(&[1f32; 64]), upload(&[0f32; 64]));
        let mut input = [1f32; 64];
        assert_eq!(cuStreamBeginCapture_v2(0, 0), 900, "not on the default stream");
        assert_eq!(cuStreamBeginCapture_v2(stream, 0), 0);
        assert_eq!(cuStreamBeginCapture_v2(stream, 0), 900);
        assert_eq!(cuMemcpyHtoDAsync_v2(one, input.as_ptr().cast(), 256, stream), 0);
        assert_eq!(launch(kernel, [1, 1, 1], [64, 1, 1], &[one, sum, sum, 64], stream), 0);
        assert_eq!(cuStreamSynchronize(stream), 900, "the stream is capturing");
        let graph = result(|place| cuStreamEndCapture(stream, place)).expect("a graph");
        assert_eq!(result(|place| cuStreamEndCapture(stream, place)), Err(1));
        let executable =
            result(|place| cuGraphInstantiate(place, graph, null_mut(), null_mut(), 0)).expect("a graph");
        assert_eq!(download::<f32>(sum, 1), Ok(vec![0.0]), "a capture runs nothing");
        for value in [1f32, 2.0, 3.0] {
            input.fill(value);
            assert_eq!((cuGraphLaunch(executable, stream), cuStreamSynchronize(stream)), (0, 0));
        }
        assert_eq!(download::<f32>(sum, 64), Ok(vec![6.0; 64]));
    });
}

#[test]
fn empty_kernels_do_nothing() {
    with("refusals::empty_kernels_do_nothing", &[("CUDA_STANDIN_EMPTY", "1")], || {
        let kernel = add_kernel();
        let (b, _) = sums(0, kernel);
        assert_eq!(download::<f32>(b, 250), Ok(vec![0.0; 250]));
    });
}

#[test]
fn faults_on_demand() {
    let set = "cuDevicePrimaryCtxRetain@1!=46,cuMemAlloc_v2@2!=2,kernel:add@3=719";
    with("refusals::faults_on_demand", &[("CUDA_STANDIN_FAULT", set)], || {
        assert_eq!(start(), Err(46));
        let kernel = add_kernel();
        let allocate = || unsafe { result(|place| cuMemAlloc_v2(place, 4)) };
        assert!(allocate().is_ok());
        assert_eq!(allocate(), Err(2));
        assert!(allocate().is_ok());
        let (one, sum) = (upload(&[1f32; 64]), upload(&[0f32; 64]));
        for number in 1..=3 {
            assert_eq!(launch(kernel, [1, 1, 1], [64, 1, 1], &[one, sum, sum, 64], 0), 0);
            let found = download::<f32>(sum, 1);
            assert_eq!(found, if number < 3 { Ok(vec![number as f32]) } else { Err(719) });
        }
    });
}

#[test]
fn a_kernel_that_hangs_ends_with_a_reset() {
    with(
        "refusals::a_kernel_that_hangs_ends_with_a_reset",
        &[("CUDA_STANDIN_FAULT", "kernel:*@1!=hang")],
        || {
            let kernel = add_kernel();
            let stream = unsafe { result(|place| cuStreamCreate(place, 1)) }.expect("a stream");
            assert_eq!(launch(kernel, [1, 1, 1], [64, 1, 1], &[0, 0, 0, 0], stream), 0);
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(unsafe { cuStreamQuery(stream) }, 600);
            assert_eq!(unsafe { cuDevicePrimaryCtxReset(0) }, 0);
            let kernel = add_kernel();
            let (b, want) = sums(0, kernel);
            assert_eq!(download::<f32>(b, 250), Ok(want));
        },
    );
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let table = [
        ("CUDA_STANDIN_ARCH", "sm_61", "it takes one of sm_53, sm_62"),
        ("CUDA_STANDIN_CHECK", "yes", "it takes 0 or 1"),
        ("CUDA_STANDIN_DRIVER", "10.2", "it takes a number from 1"),
        ("CUDA_STANDIN_FAULT", "cuInit", "it takes FUNCTION=CODE"),
        ("CUDA_STANDIN_FAULT", "cuInit=5", "it takes FUNCTION=CODE"),
        ("CUDA_STANDIN_FAULT", "cuInit=hang", "it takes FUNCTION=CODE"),
        ("CUDA_STANDIN_FAULT", "kernel:a@0=719", "it takes FUNCTION=CODE"),
    ];
    for (name, value, message) in table {
        let error = cuda::settings::Settings::read(|wanted| (wanted == name).then(|| value.to_owned()));
        let error = error.expect_err(value);
        assert!(error.contains(name) && error.contains(message), "{error}");
    }
}
