//! Operations of `atom` and `red`: from the old value and the operands to the new value.

/// The operation of a name such as `add` and a type such as `u32`. Values are passed in the low bits.
pub fn find(name: &str, kind: &str) -> Option<fn(u64, u64, u64) -> u64> {
    Some(match (name, kind) {
        ("add", "u32" | "s32") => |old, by, _| u64::from((old as u32).wrapping_add(by as u32)),
        ("add", "u64" | "s64") => |old, by, _| old.wrapping_add(by),
        ("add", "f32") => {
            |old, by, _| u64::from((f32::from_bits(old as u32) + f32::from_bits(by as u32)).to_bits())
        }
        ("add", "f64") => |old, by, _| (f64::from_bits(old) + f64::from_bits(by)).to_bits(),
        ("min", "u32" | "u64") => |old, by, _| old.min(by),
        ("max", "u32" | "u64") => |old, by, _| old.max(by),
        ("min", "s32") => |old, by, _| u64::from((old as i32).min(by as i32) as u32),
        ("max", "s32") => |old, by, _| u64::from((old as i32).max(by as i32) as u32),
        ("min", "s64") => |old, by, _| (old as i64).min(by as i64) as u64,
        ("max", "s64") => |old, by, _| (old as i64).max(by as i64) as u64,
        ("and", "b32" | "b64") => |old, by, _| old & by,
        ("or", "b32" | "b64") => |old, by, _| old | by,
        ("xor", "b32" | "b64") => |old, by, _| old ^ by,
        ("exch", "b32" | "b64") => |_, by, _| by,
        ("cas", "b32" | "b64") => |old, expected, new| if old == expected { new } else { old },
        _ => return None,
    })
}
