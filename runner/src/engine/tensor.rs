//! Tensors that may travel between threads.

use crate::failure::Failure;
use tvm_ffi::tvm_ffi_sys::dlpack::DLTensor;
use tvm_ffi::{CPUNDAlloc, DLDataType, DLDataTypeCode, DLDevice, DLDeviceType, TVMFFIObject};

/// Element types a stage may take or give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    /// 32-bit IEEE.
    Float32,
    /// 64-bit IEEE.
    Float64,
    /// Signed, of so many bytes.
    Signed(u8),
    /// Unsigned, of so many bytes.
    Unsigned(u8),
    /// One byte, 0 or 1.
    Bool,
}

/// All types by name.
const DTYPES: [(&str, Dtype); 11] = [
    ("float32", Dtype::Float32),
    ("float64", Dtype::Float64),
    ("int8", Dtype::Signed(1)),
    ("int16", Dtype::Signed(2)),
    ("int32", Dtype::Signed(4)),
    ("int64", Dtype::Signed(8)),
    ("uint8", Dtype::Unsigned(1)),
    ("uint16", Dtype::Unsigned(2)),
    ("uint32", Dtype::Unsigned(4)),
    ("uint64", Dtype::Unsigned(8)),
    ("bool", Dtype::Bool),
];

impl Dtype {
    /// By its name in a request.
    pub(crate) fn named(name: &str) -> Option<Self> {
        DTYPES.iter().find(|(known, _)| *known == name).map(|(_, dtype)| *dtype)
    }

    /// Bytes of an element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float64 => 8,
            Self::Signed(bytes) | Self::Unsigned(bytes) => usize::from(bytes),
            Self::Bool => 1,
        }
    }

    fn dl(self) -> DLDataType {
        let code = match self {
            Self::Float32 | Self::Float64 => DLDataTypeCode::kDLFloat,
            Self::Signed(_) => DLDataTypeCode::kDLInt,
            Self::Unsigned(_) => DLDataTypeCode::kDLUInt,
            Self::Bool => DLDataTypeCode::kDLBool,
        };
        let bits = u8::try_from(self.size() * 8).unwrap_or(u8::MAX);
        DLDataType { code: code as u8, bits, lanes: 1 }
    }

    fn from_dl(found: DLDataType) -> Option<Self> {
        let same = |dtype: Dtype| {
            let own = dtype.dl();
            (own.code, own.bits, own.lanes) == (found.code, found.bits, found.lanes)
        };
        DTYPES.iter().map(|(_, dtype)| *dtype).find(|dtype| same(*dtype))
    }

    fn name(self) -> &'static str {
        DTYPES.iter().find(|(_, dtype)| *dtype == self).map_or("?", |(name, _)| name)
    }
}

/// What a request says of a tensor, checked: extents of at least 1 whose product fits the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    /// Name, for messages.
    pub(crate) name: String,
    /// Extents, outermost first.
    pub(crate) shape: Vec<i64>,
    /// Element type.
    pub(crate) dtype: Dtype,
    /// Number of elements.
    pub(crate) elements: usize,
}

impl TensorSpec {
    /// Checks what a request says.
    pub(crate) fn new(tensor: &protocol::Tensor) -> Result<Self, Failure> {
        let dtype = Dtype::named(&tensor.dtype).ok_or_else(|| {
            let known: Vec<_> = DTYPES.iter().map(|(name, _)| *name).collect();
            let (name, dtype) = (&tensor.name, &tensor.dtype);
            Failure::request(format!(
                "failed to read tensor {name}: no such type as {dtype}, only {}",
                known.join(", ")
            ))
        })?;
        let elements = tensor.shape.iter().try_fold(1_usize, |product, extent| {
            let extent = usize::try_from(*extent).ok().filter(|extent| *extent > 0)?;
            product.checked_mul(extent)
        });
        let bytes = elements.and_then(|elements| elements.checked_mul(dtype.size()));
        match (elements, bytes.and_then(|bytes| isize::try_from(bytes).ok())) {
            (Some(elements), Some(_)) => {
                Ok(Self { name: tensor.name.clone(), shape: tensor.shape.clone(), dtype, elements })
            }
            _ => Err(Failure::request(format!(
                "failed to read tensor {}: every extent of {:?} must be at least 1 and all must fit memory",
                tensor.name, tensor.shape
            ))),
        }
    }

    /// Size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.elements * self.dtype.size()
    }

    pub(super) fn dl(&self) -> DLDataType {
        self.dtype.dl()
    }
}

/// The device all stages run on.
pub(super) fn cpu() -> DLDevice {
    DLDevice::new(DLDeviceType::kDLCPU, 0)
}

/// A tensor on the CPU that may be handed from thread to thread.
///
/// Its elements never change once it is visible here: frames are filled by their maker, and what a stage
/// returned is written by nobody else, because the VM allocates its outputs anew for every call.
#[derive(Clone)]
pub(crate) struct Tensor(pub(super) tvm_ffi::Tensor);

#[expect(unsafe_code, reason = "the raw pointer inside is not Send by itself")]
// SAFETY: the object behind it counts its references atomically (TVM-FFI object.h) and its deleter may run on any
// thread: CPU memory goes back to an allocator that locks, or to a mapping held by an atomic count.
unsafe impl Send for Tensor {}
#[expect(unsafe_code, reason = "the raw pointer inside is not Sync by itself")]
// SAFETY: through a shared reference one can clone (an atomic increment) and read elements that nobody writes.
unsafe impl Sync for Tensor {}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Tensor({})", self.described())
    }
}

impl Tensor {
    /// A tensor whose bytes, in the machine's order, `fill` writes.
    ///
    /// # Errors
    /// Where the system gives no memory.
    pub(crate) fn filled(spec: &TensorSpec, fill: impl FnOnce(&mut [u8])) -> Result<Self, Failure> {
        let tensor = tvm_ffi::Tensor::from_nd_alloc(CPUNDAlloc {}, &spec.shape, spec.dl(), cpu());
        if tensor.data_ptr().is_null() {
            // Its deleter would free what was never given.
            std::mem::forget(tensor);
            return Err(Failure::request(format!(
                "failed to make a tensor of {} bytes for {}: the system gives the runner no more memory; ask for fewer \
                 frames (frames.distinct) or a smaller network, or look at `free` and `ulimit -a` on the board",
                spec.bytes(),
                spec.name
            )));
        }
        #[expect(unsafe_code, reason = "elements are written through a raw pointer")]
        // SAFETY: the allocator gave as many bytes as shape and type ask for, nobody else knows of them, and any
        // byte pattern written to them before is as good as another.
        let bytes = unsafe {
            let start = tensor.data_ptr().cast::<u8>().cast_mut();
            start.write_bytes(0, spec.bytes());
            std::slice::from_raw_parts_mut(start, spec.bytes())
        };
        fill(bytes);
        Ok(Self(tensor))
    }

    /// Whether it is what the request says, and lies densely in memory; else what differs.
    pub(crate) fn check(&self, spec: &TensorSpec) -> Result<(), String> {
        let dl = self.dl();
        let cpu = dl.device.device_type == DLDeviceType::kDLCPU;
        let fits = self.0.shape() == spec.shape && Dtype::from_dl(dl.dtype) == Some(spec.dtype);
        if fits && cpu && (dl.strides.is_null() || self.0.is_contiguous()) {
            return Ok(());
        }
        let asked = format!("{} {:?}", spec.dtype.name(), spec.shape);
        Err(format!("{} is {}, the request says {asked}", spec.name, self.described()))
    }

    /// Its elements' bytes in the machine's order. To be called on tensors that passed [`Self::check`] only.
    pub(crate) fn bytes(&self) -> &[u8] {
        let dl = self.dl();
        let bytes = self.0.numel() * usize::from(dl.dtype.bits).div_ceil(8) * usize::from(dl.dtype.lanes);
        #[expect(unsafe_code, reason = "elements are read through a raw pointer")]
        // SAFETY: a dense CPU tensor has that many initialised bytes at its data pointer plus offset, and
        // nobody writes them while a reference is held.
        unsafe {
            let start = dl.data.cast::<u8>().add(usize::try_from(dl.byte_offset).unwrap_or(0));
            std::slice::from_raw_parts(start, bytes)
        }
    }

    /// Element type and shape, for messages.
    fn described(&self) -> String {
        let dtype = self.0.dtype();
        let name = Dtype::from_dl(dtype).map_or_else(
            || format!("type {}/{} bit x {}", dtype.code, dtype.bits, dtype.lanes),
            |dtype| dtype.name().to_owned(),
        );
        format!("{name} {:?}", self.0.shape())
    }

    fn dl(&self) -> &DLTensor {
        let view = tvm_ffi::AnyView::from(&self.0);
        #[expect(unsafe_code, reason = "tvm-ffi keeps the offset of a tensor's data to itself")]
        #[expect(clippy::cast_ptr_alignment, reason = "TVM made the object, DLTensor included")]
        // SAFETY: a view of a tensor holds the pointer of its object, which begins with the header common to all
        // objects and goes on with the DLTensor (TVM-FFI c_api.h, TVMFFITensorGetDLTensorPtr).
        unsafe {
            let object = super::library::raw(&view).data_union.v_obj;
            &*object.cast::<u8>().add(size_of::<TVMFFIObject>()).cast::<DLTensor>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(shape: &[i64], dtype: &str) -> Result<TensorSpec, Failure> {
        TensorSpec::new(&protocol::Tensor { name: "x".into(), shape: shape.into(), dtype: dtype.into() })
    }

    #[test]
    fn specs_are_checked() {
        assert_eq!(spec(&[2, 3], "int64").unwrap().bytes(), 48);
        assert_eq!(spec(&[], "float32").unwrap().elements, 1);
        let refused =
            [(&[0][..], "float32"), (&[-1], "float32"), (&[i64::MAX, 4], "int8"), (&[1], "float33")];
        for (shape, dtype) in refused {
            assert_eq!(spec(shape, dtype).unwrap_err().fault, protocol::Fault::Request, "{shape:?} {dtype}");
        }
    }

    #[test]
    fn a_filled_tensor_gives_back_its_bytes_and_tells_what_differs() {
        let own = spec(&[2, 2], "float32").unwrap();
        let tensor = Tensor::filled(&own, |bytes| bytes.copy_from_slice(&[7; 16])).unwrap();
        assert_eq!(tensor.bytes(), [7; 16]);
        tensor.check(&own).unwrap();
        let message = tensor.check(&spec(&[4], "int32").unwrap()).unwrap_err();
        assert_eq!(message, "x is float32 [2, 2], the request says int32 [4]");
    }
}
