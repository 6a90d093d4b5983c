//! External weight files of an ONNX file. Reads only the fields of ONNX's protocol buffers that lead to them, by the tags of
//! `onnx.proto`; other fields are skipped.

use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::path::{Component, Path};

/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: u64 = 1;
/// Deepest nesting of messages. A damaged file must not exhaust the stack.
const DEEPEST: usize = 100;

/// A kind of message: which of its fields lead to tensors.
#[derive(Debug, Clone, Copy)]
enum Message {
    Model,
    Function,
    Graph,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl Message {
    /// The kind of the message in this field; absent for fields that lead to no tensor.
    fn field(self, tag: u64) -> Option<Self> {
        Some(match (self, tag) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 25) => Self::Function,
            (Self::Function, 7) | (Self::Graph, 1) => Self::Node,
            (Self::Node, 5) => Self::Attribute,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            _ => return None,
        })
    }
}

/// A field of a message.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Number(u64),
    /// A message, text, or several numbers.
    Bytes(&'a [u8]),
    /// A number of a fixed length.
    Other,
}

/// Takes the next field, with its tag, off the front of a message. `None` if it is damaged.
fn take_field<'a>(message: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = take_number(message)?;
    let value = match key & 7 {
        0 => Value::Number(take_number(message)?),
        1 => take(message, 8).map(|_| Value::Other)?,
        2 => {
            let length = usize::try_from(take_number(message)?).ok()?;
            Value::Bytes(take(message, length)?)
        }
        5 => take(message, 4).map(|_| Value::Other)?,
        _ => return None,
    };
    Some((key >> 3, value))
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(taken)
}

/// Seven bits a byte, the lowest first; the high bit is set on all but the last.
fn take_number(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Names of the external weight files of the ONNX file `path`, relative to its directory, in order. Empty if the file is not a
/// valid ONNX file. Omits names outside the directory. The compiler refuses both and reports why.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn files(path: &Path) -> Result<BTreeSet<String>> {
    let content = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut files = BTreeSet::new();
    if collect(Message::Model, &content, 0, &mut files).is_none() {
        files.clear();
    }
    files.retain(|name| Path::new(name).components().all(|part| matches!(part, Component::Normal(_))));
    Ok(files)
}

/// Adds the files of all tensors in a message. `None` if it is damaged.
fn collect(kind: Message, mut message: &[u8], depth: usize, files: &mut BTreeSet<String>) -> Option<()> {
    if depth > DEEPEST {
        return None;
    }
    if matches!(kind, Message::Tensor) {
        return add_file(message, files);
    }
    while !message.is_empty() {
        let (tag, value) = take_field(&mut message)?;
        if let (Some(inner), Value::Bytes(bytes)) = (kind.field(tag), value) {
            collect(inner, bytes, depth + 1, files)?;
        }
    }
    Some(())
}

/// Adds the file of a tensor whose data is in one. `None` if the message is damaged.
fn add_file(mut tensor: &[u8], files: &mut BTreeSet<String>) -> Option<()> {
    let (mut is_external, mut location) = (false, None);
    while !tensor.is_empty() {
        match take_field(&mut tensor)? {
            (13, Value::Bytes(mut entry)) => {
                let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
                while !entry.is_empty() {
                    match take_field(&mut entry)? {
                        (1, Value::Bytes(bytes)) => key = bytes,
                        (2, Value::Bytes(bytes)) => value = bytes,
                        _ => {}
                    }
                }
                if key == b"location" && location.is_none() {
                    location = Some(std::str::from_utf8(value).ok()?.to_owned());
                }
            }
            (14, Value::Number(number)) => is_external = number == EXTERNAL,
            _ => {}
        }
    }
    files.extend(location.filter(|_| is_external));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that is a message or text.
    fn field(tag: u8, content: &[u8]) -> Vec<u8> {
        // Tags from 16 on take two bytes, and so do lengths from 128 on.
        let number = |number: usize| {
            let low = u8::try_from(number & 0x7f).expect("seven bits");
            let high = u8::try_from(number >> 7).expect("a short message");
            if high == 0 { vec![low] } else { vec![low | 0x80, high] }
        };
        [number(usize::from(tag) << 3 | 2), number(content.len()), content.to_vec()].concat()
    }

    fn tensor(location: &str, is_external: bool) -> Vec<u8> {
        let entry = |key: &str, value: &str| {
            field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
        };
        let kind = vec![14 << 3, u8::from(is_external)];
        // Other fields: a number of eight bytes, one of four, and one of one to ten.
        let others =
            [&[30 << 3 & 0x7f | 1 | 0x80, 1][..], &[0; 8], &[6 << 3 | 5], &[0; 4], &[2 << 3, 1]].concat();
        [others, entry("offset", "0"), entry("location", location), kind].concat()
    }

    #[test]
    fn files_are_found_wherever_a_tensor_may_be() {
        let sparse = [field(1, &tensor("values", true)), field(2, &tensor("indices", true))].concat();
        let branch = field(5, &tensor("branch", true));
        let attribute = [
            field(1, b"its name"),
            field(5, &tensor("constant", true)),
            field(6, &branch),
            field(11, &field(5, &tensor("branches", true))),
            field(22, &sparse),
            field(23, &field(1, &tensor("sparse", true))),
        ];
        let node = |attribute: &[u8]| field(5, attribute);
        let graph = [
            field(1, &node(&attribute.concat())),
            field(5, &tensor("b/weights", true)),
            field(5, &tensor("inside", false)),
            field(5, &tensor("/etc/hostname", true)),
            field(5, &tensor("../secret", true)),
            field(15, &field(1, &tensor("initializer", true))),
        ];
        let function = field(7, &node(&field(10, &tensor("function", true))));
        let model = [field(7, &graph.concat()), field(25, &function)].concat();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("net.onnx");
        let found = |content: &[u8]| {
            std::fs::write(&path, content).expect("a file");
            files(&path).expect("files").into_iter().collect::<Vec<_>>()
        };
        let expected = [
            "b/weights",
            "branch",
            "branches",
            "constant",
            "function",
            "indices",
            "initializer",
            "sparse",
            "values",
        ];
        assert_eq!(found(&model), expected);
        assert!(found(b"no network").is_empty());
        assert!(found(&model[..model.len() - 1]).is_empty(), "it ends within a message");
    }

    #[test]
    fn deep_nesting_is_no_stack_overflow() {
        // An attribute in a node in a graph in an attribute, and so on.
        let mut message = Vec::new();
        for _ in 0..40 {
            message = field(6, &field(1, &field(5, &message)));
        }
        let model = field(7, &field(1, &field(5, &message)));
        assert_eq!(collect(Message::Model, &model, 0, &mut BTreeSet::new()), None);
        let shallow = field(7, &field(1, &field(5, &field(5, &tensor("weights", true)))));
        let mut files = BTreeSet::new();
        assert_eq!(collect(Message::Model, &shallow, 0, &mut files), Some(()));
        assert_eq!(files.len(), 1);
    }
}
