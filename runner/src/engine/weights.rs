//! Files of weights, mapped read-only once and shared by all stages.

use super::tensor::{Tensor, cpu, dl_type};
use crate::failure::Failure;
use crate::memory;
use crate::schedule::TensorSpec;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::collections::HashMap;
use std::ffi::c_void;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use tvm_ffi::NDAllocator;
use tvm_ffi::tvm_ffi_sys::dlpack::DLTensor;

/// Kernels load aligned vectors from the start of a tensor.
const ALIGNMENT: u64 = 64;

#[derive(Debug)]
pub(crate) struct WeightsFile {
    path: PathBuf,
    start: NonNull<c_void>,
    bytes: usize,
    identity: Identity,
}

/// Device, inode, size and modification time: they change if another file replaces this one.
pub(super) type Identity = (u64, u64, u64, i64, i64);

#[expect(unsafe_code, reason = "contains a raw pointer")]
// SAFETY: the mapping is read-only, belongs to the process and lives as long as the value.
unsafe impl Send for WeightsFile {}
#[expect(unsafe_code, reason = "contains a raw pointer")]
// SAFETY: as above.
unsafe impl Sync for WeightsFile {}

impl WeightsFile {
    fn identity_of(file: &File) -> std::io::Result<Identity> {
        let about = file.metadata()?;
        Ok((about.dev(), about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
    }

    fn map(path: &Path, file: &File, identity: Identity) -> Result<Self, Failure> {
        let fail =
            |reason: String| Failure::weights(format!("failed to map weights {}: {reason}", path.display()));
        let bytes = usize::try_from(identity.2).map_err(|error| fail(error.to_string()))?;
        if bytes == 0 {
            // An empty file cannot be mapped, and a network without weights does not need it.
            return Ok(Self { path: path.to_path_buf(), start: NonNull::dangling(), bytes, identity });
        }
        memory::check_available(bytes as u64).map_err(fail)?;
        // `POPULATE` reads the file now, so that no stage waits for the disk later.
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        #[expect(unsafe_code, reason = "a mapping is raw memory")]
        // SAFETY: a new mapping at an address that the kernel chooses overlaps nothing. Files are deployed under a new name
        // and then renamed, so a mapped file is never truncated.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, flags, file, 0) }
            .map_err(|error| fail(error.to_string()))?;
        let start =
            NonNull::new(start).ok_or_else(|| fail("the kernel mapped it to address 0".to_owned()))?;
        Ok(Self { path: path.to_path_buf(), start, bytes, identity })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Some bytes of the file; `name` is that of the tensor, for the message.
    pub(super) fn bytes_at(&self, offset: u64, bytes: u64, name: &str) -> Result<&[u8], Failure> {
        let outside = || {
            Failure::weights(format!(
                "failed to read weights from {}: {name} has {bytes} bytes at offset {offset}, but the file has {} bytes; \
                 deploy it again",
                self.path.display(),
                self.bytes
            ))
        };
        let end = offset.checked_add(bytes).filter(|end| *end <= self.bytes()).ok_or_else(outside)?;
        let (Ok(start), Ok(end)) = (usize::try_from(offset), usize::try_from(end)) else {
            return Err(outside());
        };
        #[expect(unsafe_code, reason = "a mapping is raw memory")]
        // SAFETY: the range lies inside of the mapping, which is read-only and lives as long as `self`.
        Ok(unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>().add(start), end - start) })
    }

    /// The tensors of a stage, as views of the mapping.
    pub(crate) fn tensors(self: &Arc<Self>, weights: &protocol::Weights) -> Result<Vec<Tensor>, Failure> {
        let fail = |reason: String| {
            Failure::weights(format!("failed to read weights from {}: {reason}", self.path.display()))
        };
        let (offsets, tensors) = (&weights.offsets, &weights.tensors);
        if offsets.len() != tensors.len() {
            return Err(fail(format!(
                "the request has different numbers of offsets and tensors: {} and {}",
                offsets.len(),
                tensors.len()
            )));
        }
        let mut views = Vec::with_capacity(offsets.len());
        for (offset, tensor) in offsets.iter().zip(tensors) {
            let spec = TensorSpec::new(tensor)?;
            let end = offset.checked_add(spec.bytes as u64);
            if offset % ALIGNMENT != 0 {
                return Err(fail(format!(
                    "the offset {offset} of {} is not a multiple of {ALIGNMENT}",
                    spec.name
                )));
            }
            if end.is_none_or(|end| end > self.bytes()) {
                return Err(fail(format!(
                    "{} has {} bytes at offset {offset}, but the file has {} bytes; deploy it again",
                    spec.name, spec.bytes, self.bytes
                )));
            }
            let offset = usize::try_from(*offset).map_err(|error| fail(error.to_string()))?;
            let view = View { file: Arc::clone(self), offset };
            views.push(Tensor(tvm_ffi::Tensor::from_nd_alloc(view, &spec.shape, dl_type(spec.dtype), cpu())));
        }
        Ok(views)
    }
}

impl Drop for WeightsFile {
    fn drop(&mut self) {
        if self.bytes > 0 {
            #[expect(unsafe_code, reason = "a mapping is raw memory")]
            // SAFETY: every view of the mapping holds a reference to `self`, so none is left.
            let result = unsafe { munmap(self.start.as_ptr(), self.bytes) };
            debug_assert!(result.is_ok(), "{result:?}");
        }
    }
}

/// A position in a mapping. As an allocator it returns that position and keeps the mapping alive.
struct View {
    file: Arc<WeightsFile>,
    offset: usize,
}

#[expect(unsafe_code, reason = "tvm-ffi trusts the pointer that an allocator returns")]
// SAFETY: the position is inside the mapping with enough bytes after it (checked by `tensors`), aligned to 64 bytes
// (mappings start at pages, offsets are checked), and valid as long as this value, which the tensor owns. Kernels only
// read weights; page protection stops one that writes.
unsafe impl NDAllocator for View {
    const MIN_ALIGN: usize = 64;

    unsafe fn alloc_data(&mut self, _prototype: &DLTensor) -> *mut c_void {
        // SAFETY: the offset is inside the mapping.
        unsafe { self.file.start.as_ptr().cast::<u8>().add(self.offset).cast::<c_void>() }
    }

    unsafe fn free_data(&mut self, _tensor: &DLTensor) {}
}

/// The mapped files of this process.
#[derive(Debug, Default)]
pub(crate) struct WeightsCache {
    files: HashMap<PathBuf, Arc<WeightsFile>>,
}

impl WeightsCache {
    /// Maps the files at these paths, in order. A file that is mapped already is shared unless another file has replaced
    /// it. Files that are not in the list are unmapped.
    pub(crate) fn map<'a>(
        &mut self,
        paths: impl IntoIterator<Item = Option<&'a Path>>,
    ) -> Result<Vec<Option<Arc<WeightsFile>>>, Failure> {
        let mut fresh = HashMap::new();
        let mut found = Vec::new();
        for path in paths {
            let Some(path) = path else {
                found.push(None);
                continue;
            };
            let fail = |error: std::io::Error| {
                Failure::weights(format!(
                    "failed to open weights {}: {error}; deploy it again",
                    path.display()
                ))
            };
            let file = File::open(path).map_err(fail)?;
            let identity = WeightsFile::identity_of(&file).map_err(fail)?;
            let known = fresh.get(path).or_else(|| self.files.get(path));
            let weights = match known {
                Some(known) if known.identity == identity => Arc::clone(known),
                _ => Arc::new(WeightsFile::map(path, &file, identity)?),
            };
            fresh.insert(path.to_path_buf(), Arc::clone(&weights));
            found.push(Some(weights));
        }
        self.files = fresh;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(cache: &mut WeightsCache, paths: &[&PathBuf]) -> Vec<Arc<WeightsFile>> {
        let found = cache.map(paths.iter().map(|path| Some(path.as_path()))).unwrap();
        found.into_iter().map(Option::unwrap).collect()
    }

    fn request(path: &Path, offset: u64, extent: i64) -> protocol::Weights {
        let tensor =
            protocol::Tensor { name: "w".into(), shape: vec![extent], dtype: protocol::Dtype::Uint8 };
        protocol::Weights { path: path.display().to_string(), offsets: vec![offset], tensors: vec![tensor] }
    }

    #[test]
    fn views_share_one_mapping_and_outlive_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.bin");
        std::fs::write(&path, (0..=255).collect::<Vec<u8>>()).unwrap();
        let mut cache = WeightsCache::default();
        let first = map(&mut cache, &[&path, &path]);
        let again = map(&mut cache, &[&path]);
        assert!(Arc::ptr_eq(&first[0], &first[1]) && Arc::ptr_eq(&first[0], &again[0]));
        let tensors = first[0].tensors(&request(&path, 64, 3)).unwrap();
        drop((cache, first, again));
        assert_eq!(tensors[0].bytes(), [64, 65, 66]);
    }

    #[test]
    fn a_file_that_replaces_another_is_mapped_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.bin");
        std::fs::write(&path, [1; 64]).unwrap();
        let mut cache = WeightsCache::default();
        let old = map(&mut cache, &[&path]);
        std::fs::write(folder.path().join("new"), [2; 64]).unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        let new = map(&mut cache, &[&path]);
        let byte = |file: &Arc<WeightsFile>| file.tensors(&request(&path, 0, 1)).unwrap()[0].bytes()[0];
        assert_eq!((byte(&old[0]), byte(&new[0])), (1, 2));
    }

    #[test]
    fn tensors_outside_the_file_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.bin");
        std::fs::write(&path, [0; 128]).unwrap();
        let mut cache = WeightsCache::default();
        let file = map(&mut cache, &[&path]).remove(0);
        for (offset, extent, says) in [
            (64, 65, "but the file has 128 bytes"),
            (8, 1, "not a multiple of 64"),
            (u64::MAX - 63, 64, "but the file has 128 bytes"),
        ] {
            let failure = file.tensors(&request(&path, offset, extent)).unwrap_err();
            assert!(failure.message.contains(says), "{failure}");
        }
        let absent = cache.map([Some(folder.path().join("absent").as_path())]).unwrap_err();
        assert!(absent.message.contains("absent") && absent.fault == protocol::Fault::Weights, "{absent}");
    }
}
