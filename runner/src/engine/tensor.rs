//! Tensors in host memory that may move between threads.

use crate::failure::Failure;
use crate::schedule::TensorSpec;
use protocol::Dtype;
use std::mem::MaybeUninit;
use tvm_ffi::tvm_ffi_sys::dlpack::DLTensor;
use tvm_ffi::{
    AnyView, CPUNDAlloc, DLDataType, DLDataTypeCode, DLDevice, DLDeviceType, TVMFFIAny, TVMFFIObject,
};

/// `DLPack`'s description of an element type.
pub(super) fn dl_type(dtype: Dtype) -> DLDataType {
    let code = match dtype {
        Dtype::Float32 | Dtype::Float64 => DLDataTypeCode::kDLFloat,
        Dtype::Int8 | Dtype::Int16 | Dtype::Int32 | Dtype::Int64 => DLDataTypeCode::kDLInt,
        Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 | Dtype::Uint64 => DLDataTypeCode::kDLUInt,
        Dtype::Bool => DLDataTypeCode::kDLBool,
    };
    let bits = u8::try_from(dtype.bytes() * 8).unwrap_or(u8::MAX);
    DLDataType { code: code as u8, bits, lanes: 1 }
}

fn dtype_of(found: DLDataType) -> Option<Dtype> {
    Dtype::ALL.into_iter().find(|dtype| {
        let known = dl_type(*dtype);
        (known.code, known.bits, known.lanes) == (found.code, found.bits, found.lanes)
    })
}

pub(super) fn cpu() -> DLDevice {
    DLDevice::new(DLDeviceType::kDLCPU, 0)
}

/// A tensor in host memory. Its elements never change after construction: input frames are filled by [`Tensor::filled`],
/// and an engine allocates new outputs for every frame.
#[derive(Clone)]
pub(crate) struct Tensor(pub(super) tvm_ffi::Tensor);

#[expect(unsafe_code, reason = "contains a raw pointer")]
// SAFETY: the object behind it counts its references atomically (TVM-FFI object.h) and its deleter may run on any
// thread: CPU memory goes back to an allocator that locks, or to a mapping held by an atomic count.
unsafe impl Send for Tensor {}
#[expect(unsafe_code, reason = "contains a raw pointer")]
// SAFETY: a shared reference allows cloning (an atomic increment) and reading elements that are never written.
unsafe impl Sync for Tensor {}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Tensor({})", self.described())
    }
}

impl Tensor {
    /// Allocates a tensor of zeros and lets `fill` write its bytes, in native byte order.
    ///
    /// # Errors
    /// If the allocation fails.
    pub(crate) fn filled(spec: &TensorSpec, fill: impl FnOnce(&mut [u8])) -> Result<Self, Failure> {
        let tensor = Self::allocate(spec)?;
        #[expect(unsafe_code, reason = "elements are written through a raw pointer")]
        // SAFETY: the allocation has `spec.bytes` bytes and no other reference; zeros initialize all of them.
        let bytes = unsafe {
            let start = tensor.data_ptr().cast::<u8>().cast_mut();
            start.write_bytes(0, spec.bytes);
            std::slice::from_raw_parts_mut(start, spec.bytes)
        };
        fill(bytes);
        Ok(Self(tensor))
    }

    /// Allocates a tensor and lets a device write all its bytes: if `receive` succeeds, it has initialized them.
    ///
    /// # Errors
    /// If the allocation or `receive` fails.
    pub(super) fn received(
        spec: &TensorSpec,
        receive: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<(), String>,
    ) -> Result<Self, String> {
        let tensor = Self::allocate(spec).map_err(|failure| failure.message)?;
        #[expect(unsafe_code, reason = "elements are written through a raw pointer")]
        // SAFETY: the allocation has `spec.bytes` bytes and no other reference.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<MaybeUninit<u8>>().cast_mut(), spec.bytes)
        };
        receive(bytes)?;
        Ok(Self(tensor))
    }

    fn allocate(spec: &TensorSpec) -> Result<tvm_ffi::Tensor, Failure> {
        let tensor = tvm_ffi::Tensor::from_nd_alloc(CPUNDAlloc {}, &spec.shape, dl_type(spec.dtype), cpu());
        if tensor.data_ptr().is_null() {
            // Its deleter would free memory that was never allocated.
            std::mem::forget(tensor);
            return Err(Failure::request(format!(
                "failed to allocate {} bytes for tensor {}: out of memory; reduce frames.distinct, choose a smaller \
                 network, or check `free` and `ulimit -a` on the board",
                spec.bytes, spec.name
            )));
        }
        Ok(tensor)
    }

    /// Checks that type, shape and device match and that the elements are contiguous; the error says what differs.
    pub(crate) fn check(&self, spec: &TensorSpec) -> Result<(), String> {
        let dl = self.dl();
        let cpu = dl.device.device_type == DLDeviceType::kDLCPU;
        let fits = self.0.shape() == spec.shape && dtype_of(dl.dtype) == Some(spec.dtype);
        if fits && cpu && (dl.strides.is_null() || self.0.is_contiguous()) {
            return Ok(());
        }
        Err(format!("{} is {}, expected {} {:?}", spec.name, self.described(), spec.dtype, spec.shape))
    }

    /// The bytes of the elements in native byte order. The tensor must have passed [`Self::check`].
    pub(crate) fn bytes(&self) -> &[u8] {
        let dl = self.dl();
        let bytes = self.0.numel() * usize::from(dl.dtype.bits).div_ceil(8) * usize::from(dl.dtype.lanes);
        #[expect(unsafe_code, reason = "elements are read through a raw pointer")]
        // SAFETY: a contiguous CPU tensor has that many initialized bytes at its data pointer plus offset, and they are
        // never written again.
        unsafe {
            let start = dl.data.cast::<u8>().add(usize::try_from(dl.byte_offset).unwrap_or(0));
            std::slice::from_raw_parts(start, bytes)
        }
    }

    fn described(&self) -> String {
        let dtype = self.0.dtype();
        let name = dtype_of(dtype).map_or_else(
            || format!("type {}/{} bit x {}", dtype.code, dtype.bits, dtype.lanes),
            |dtype| dtype.to_string(),
        );
        format!("{name} {:?}", self.0.shape())
    }

    fn dl(&self) -> &DLTensor {
        let view = AnyView::from(&self.0);
        #[expect(unsafe_code, reason = "tvm-ffi does not expose the offset of a tensor's data")]
        #[expect(clippy::cast_ptr_alignment, reason = "TVM made the object, DLTensor included")]
        // SAFETY: a view of a tensor holds the pointer to its object: the header common to all objects, followed by the
        // DLTensor (TVM-FFI c_api.h, TVMFFITensorGetDLTensorPtr).
        unsafe {
            let object = raw(&view).data_union.v_obj;
            &*object.cast::<u8>().add(size_of::<TVMFFIObject>()).cast::<DLTensor>()
        }
    }
}

/// The C representation of a view.
pub(super) fn raw(view: &AnyView<'_>) -> TVMFFIAny {
    #[expect(unsafe_code, reason = "tvm-ffi does not expose the fields of a view")]
    // SAFETY: `AnyView` is `repr(C)` around a single `TVMFFIAny`; tvm-ffi itself passes slices of views as slices
    // of these.
    unsafe {
        *std::ptr::from_ref(view).cast::<TVMFFIAny>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(shape: &[i64], dtype: Dtype) -> TensorSpec {
        TensorSpec::new(&protocol::Tensor { name: "x".into(), shape: shape.into(), dtype }).unwrap()
    }

    #[test]
    fn a_tensor_returns_its_bytes_and_reports_a_mismatch() {
        let own = spec(&[2, 2], Dtype::Float32);
        let tensor = Tensor::filled(&own, |bytes| bytes.copy_from_slice(&[7; 16])).unwrap();
        assert_eq!(tensor.bytes(), [7; 16]);
        tensor.check(&own).unwrap();
        let message = tensor.check(&spec(&[4], Dtype::Int32)).unwrap_err();
        assert_eq!(message, "x is float32 [2, 2], expected int32 [4]");
    }
}
