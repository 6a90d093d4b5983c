//! Weights in device memory, uploaded once and shared by all stages that need them.

use super::api::{Address, CallError};
use super::device::{Device, Memory};
use super::stream::Stream;
use crate::engine::weights::{Identity, WeightsFile};
use crate::failure::Failure;
use protocol::launch_plan::Weight;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

/// Alignment of a tensor in device memory.
const ALIGNMENT: u64 = 256;

/// Number of a device, and file, offset and size of weights.
type Key = (u32, Identity, u64, u64);

/// Weights in device memory and their place in it, as long as a stage uses them.
type Uploads = HashMap<Key, (Weak<Memory>, u64)>;

static UPLOADS: LazyLock<Mutex<Uploads>> = LazyLock::new(Mutex::default);

/// The weights of one stage.
pub(super) struct DeviceWeights {
    /// Of each weight, in the plan's order.
    pub(super) addresses: Vec<Address>,
    /// Memory that this stage allocated, because no other stage had uploaded its weights.
    pub(super) fresh_bytes: u64,
    _memory: Vec<Arc<Memory>>,
}

impl DeviceWeights {
    /// Uploads the weights that are not in device memory yet, in one allocation.
    ///
    /// # Errors
    /// If one lies outside of the file, or the device is out of memory.
    pub(super) fn upload(
        device: &Arc<Device>,
        file: &WeightsFile,
        weights: &[Weight],
        plan: &str,
    ) -> Result<Self, Failure> {
        let mut uploads = UPLOADS.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.retain(|_, (memory, _)| memory.strong_count() > 0);
        let identity = file.identity();
        let key = |weight: &Weight| (device.index, identity, weight.offset, weight.bytes);
        let mut missing: Vec<(Key, u64, &[u8])> = Vec::new();
        let mut size = 0_u64;
        for (index, weight) in weights.iter().enumerate() {
            let bytes = file.bytes_at(weight.offset, weight.bytes, &format!("weight {index} of {plan}"))?;
            if !uploads.contains_key(&key(weight)) && !missing.iter().any(|(known, ..)| *known == key(weight))
            {
                missing.push((key(weight), size, bytes));
                size += weight.bytes.next_multiple_of(ALIGNMENT);
            }
        }
        let mut memory = Vec::new();
        if !missing.is_empty() {
            let failed = |error: CallError| {
                let reason = device.describe(error);
                Failure::device(format!("failed to upload the weights of {plan}: {reason}"))
            };
            let fresh = Arc::new(device.allocate(size, &format!("the weights of {plan}"))?);
            let stream = Stream::new(device).map_err(failed)?;
            let started =
                missing.iter().try_for_each(|(_, place, bytes)| stream.copy_to_device(&fresh, *place, bytes));
            // Also after an error: the memory must stay until the copies that were started have ended.
            let ended = stream.wait();
            started.and(ended).map_err(failed)?;
            uploads.extend(missing.into_iter().map(|(key, place, _)| (key, (Arc::downgrade(&fresh), place))));
            memory.push(fresh);
        }
        let mut addresses = Vec::with_capacity(weights.len());
        for weight in weights {
            let found = uploads.get(&key(weight)).and_then(|(held, place)| Some((held.upgrade()?, *place)));
            let (held, place) =
                found.ok_or_else(|| Failure::internal("failed to upload weights: they are gone"))?;
            addresses.push(held.address + place);
            if !memory.iter().any(|known| Arc::ptr_eq(known, &held)) {
                memory.push(held);
            }
        }
        Ok(Self { addresses, fresh_bytes: size, _memory: memory })
    }
}
