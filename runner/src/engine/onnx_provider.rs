//! ONNX Runtime's execution providers for GPUs: what a session computes with instead of the CPUs.

use ort::ep::{CUDA, ExecutionProvider, TensorRT};
use ort::session::builder::SessionBuilder;
use protocol::{OnnxGpu, OnnxProvider};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The folder of TensorRT's engines, so that each is built once per runner process and not for each trial. They
/// depend on the versions of TensorRT, CUDA and the driver, so the next runner builds its own.
static ENGINES: OnceLock<PathBuf> = OnceLock::new();

/// Keeps NVIDIA's libraries from rounding float32 to TF32, which TensorRT does by default and has no option for in ONNX
/// Runtime. To be called before another thread starts.
///
/// Source: CUDA's documentation of `NVIDIA_TF32_OVERRIDE`, which cuBLAS, cuDNN and TensorRT obey.
pub(crate) fn disable_tf32() {
    #[expect(unsafe_code, reason = "the environment is changed for libraries that are loaded later")]
    // SAFETY: no other thread reads the environment yet.
    unsafe {
        std::env::set_var("NVIDIA_TF32_OVERRIDE", "0");
    }
}

/// Lets a session compute on a GPU: float32 without TF32, and no node on the CPUs, so that a session that succeeds is one
/// of the GPU. All else has the providers' defaults. `runtime` is the library of ONNX Runtime.
///
/// # Errors
/// If the library has no such provider, the provider does not load or start, or the folder of engines cannot be created.
pub(super) fn place_on(
    builder: SessionBuilder,
    gpu: OnnxGpu,
    runtime: &Path,
) -> Result<SessionBuilder, String> {
    let device = i32::try_from(gpu.device).map_err(|_| format!("there is no device {}", gpu.device))?;
    let builder = builder.with_disable_cpu_fallback().map_err(|error| error.to_string())?;
    let cuda = CUDA::default().with_device_id(device).with_tf32(false);
    match gpu.provider {
        OnnxProvider::Cuda => append(builder, &cuda, runtime),
        OnnxProvider::Tensorrt => {
            let tensorrt = TensorRT::default();
            check_available(&tensorrt, runtime)?;
            let tensorrt = tensorrt
                .with_device_id(device)
                .with_engine_cache(true)
                .with_engine_cache_path(engines()?.display());
            let builder = append(builder, &tensorrt, runtime)?;
            append(builder, &cuda, runtime)
        }
    }
}

fn append(
    mut builder: SessionBuilder,
    provider: &impl ExecutionProvider,
    runtime: &Path,
) -> Result<SessionBuilder, String> {
    check_available(provider, runtime)?;
    provider.register(&mut builder).map_err(|error| {
        format!(
            "failed to start {}: {error}; install what it lacks where the dynamic linker finds it (`ldconfig`)",
            provider.name()
        )
    })?;
    Ok(builder)
}

fn check_available(provider: &impl ExecutionProvider, runtime: &Path) -> Result<(), String> {
    if provider.is_available().map_err(|error| error.to_string())? {
        return Ok(());
    }
    Err(format!(
        "{} was built without {}; name a library that has it as `onnxruntime` in the board's file",
        runtime.display(),
        provider.name()
    ))
}

fn engines() -> Result<&'static Path, String> {
    if let Some(known) = ENGINES.get() {
        return Ok(known);
    }
    let folder = std::env::temp_dir().join(format!("edgepipe-tensorrt-{}", std::process::id()));
    // Of a runner with the same number that was killed.
    let _ = std::fs::remove_dir_all(&folder);
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(|error| format!("failed to create {} for TensorRT's engines: {error}", folder.display()))?;
    Ok(ENGINES.get_or_init(|| folder))
}

/// Removes TensorRT's engines, when the runner ends.
pub(super) fn remove_engines() {
    if let Some(folder) = ENGINES.get() {
        // A folder that stays is in the way of nothing.
        let _ = std::fs::remove_dir_all(folder);
    }
}
