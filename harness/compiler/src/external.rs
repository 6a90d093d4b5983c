//! External weight files of an ONNX file. Declares only the fields of ONNX's protocol buffers that lead to them, with the tags
//! of `onnx.proto`; other fields are skipped.

use anyhow::{Context as _, Result};
use prost::Message;
use std::collections::BTreeSet;
use std::path::{Component, Path};

/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<Function>,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(message, repeated, tag = "7")]
    nodes: Vec<Node>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializers: Vec<Tensor>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializers: Vec<SparseTensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(message, optional, tag = "5")]
    tensor: Option<Tensor>,
    #[prost(message, optional, tag = "6")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<Graph>,
    #[prost(message, optional, tag = "22")]
    sparse_tensor: Option<SparseTensor>,
    #[prost(message, repeated, tag = "23")]
    sparse_tensors: Vec<SparseTensor>,
}

#[derive(Clone, PartialEq, Message)]
struct SparseTensor {
    #[prost(message, optional, tag = "1")]
    values: Option<Tensor>,
    #[prost(message, optional, tag = "2")]
    indices: Option<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<Entry>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// Names of the external weight files of the ONNX file `path`, relative to its directory, in order. Empty if the file is not a
/// valid ONNX file. Omits names outside the directory. The compiler refuses both and reports why.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn files(path: &Path) -> Result<BTreeSet<String>> {
    let content = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut files = BTreeSet::new();
    if let Ok(model) = Model::decode(content.as_slice()) {
        model.graph.iter().for_each(|graph| in_graph(graph, &mut files));
        model.functions.iter().for_each(|function| in_nodes(&function.nodes, &mut files));
    }
    files.retain(|name| Path::new(name).components().all(|part| matches!(part, Component::Normal(_))));
    Ok(files)
}

fn in_graph(graph: &Graph, files: &mut BTreeSet<String>) {
    in_nodes(&graph.nodes, files);
    graph.initializers.iter().for_each(|tensor| in_tensor(tensor, files));
    graph.sparse_initializers.iter().for_each(|sparse| in_sparse(sparse, files));
}

fn in_nodes(nodes: &[Node], files: &mut BTreeSet<String>) {
    for attribute in nodes.iter().flat_map(|node| &node.attributes) {
        attribute.tensor.iter().chain(&attribute.tensors).for_each(|tensor| in_tensor(tensor, files));
        attribute.graph.iter().chain(&attribute.graphs).for_each(|graph| in_graph(graph, files));
        let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
        sparse.for_each(|sparse| in_sparse(sparse, files));
    }
}

fn in_sparse(sparse: &SparseTensor, files: &mut BTreeSet<String>) {
    sparse.values.iter().chain(&sparse.indices).for_each(|tensor| in_tensor(tensor, files));
}

fn in_tensor(tensor: &Tensor, files: &mut BTreeSet<String>) {
    if tensor.data_location == EXTERNAL {
        let location = tensor.external_data.iter().find(|entry| entry.key == "location");
        files.extend(location.map(|entry| entry.value.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(location: &str) -> Tensor {
        let entry = |key: &str, value: &str| Entry { key: key.to_owned(), value: value.to_owned() };
        let external_data = vec![entry("offset", "0"), entry("location", location)];
        Tensor { external_data, data_location: EXTERNAL }
    }

    #[test]
    fn files_are_found_wherever_a_tensor_may_be() {
        let sparse = SparseTensor { values: Some(tensor("values")), indices: Some(tensor("indices")) };
        let branch = Graph { initializers: vec![tensor("branch")], ..Graph::default() };
        let attribute = Attribute {
            tensor: Some(tensor("constant")),
            graph: Some(branch),
            sparse_tensor: Some(sparse),
            ..Attribute::default()
        };
        let inside = Tensor { data_location: 0, ..tensor("inside") };
        let graph = Graph {
            nodes: vec![Node { attributes: vec![attribute] }],
            initializers: vec![tensor("b/weights"), inside, tensor("/etc/hostname"), tensor("../secret")],
            ..Graph::default()
        };
        let function = Function {
            nodes: vec![Node {
                attributes: vec![Attribute { tensors: vec![tensor("function")], ..Attribute::default() }],
            }],
        };
        let model = Model { graph: Some(graph), functions: vec![function] };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("net.onnx");
        std::fs::write(&path, model.encode_to_vec()).expect("a file");
        let found: Vec<_> = files(&path).expect("files").into_iter().collect();
        assert_eq!(found, ["b/weights", "branch", "constant", "function", "indices", "values"]);
        std::fs::write(&path, "no network").expect("a file");
        assert!(files(&path).expect("files").is_empty());
    }
}
