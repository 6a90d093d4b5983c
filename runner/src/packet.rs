//! A frame on its way through the stages.

use crate::engine::Tensor;

/// The tensors of a frame. Packets are made once and used again for frame after frame.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Place in the order of admission.
    pub(crate) frame: u64,
    /// When it entered its first stage.
    pub(crate) entered_ns: u64,
    /// By the schedule's indices; there from its making to its last use.
    pub(crate) values: Vec<Option<Tensor>>,
    /// Begin and end in every stage; (0, 0) where it was not.
    pub(crate) spans: Vec<(u64, u64)>,
}

impl Packet {
    /// An empty packet.
    pub(crate) fn new(values: usize, stages: usize) -> Self {
        Self { frame: 0, entered_ns: 0, values: vec![None; values], spans: vec![(0, 0); stages] }
    }

    /// Takes up the inputs of a frame.
    pub(crate) fn admit(&mut self, frame: u64, inputs: &[usize], tensors: &[Tensor]) {
        self.frame = frame;
        self.spans.fill((0, 0));
        for (index, tensor) in inputs.iter().zip(tensors) {
            self.values[*index] = Some(tensor.clone());
        }
    }

    /// Lets go of values.
    pub(crate) fn release(&mut self, values: &[usize]) {
        for index in values {
            self.values[*index] = None;
        }
    }
}
