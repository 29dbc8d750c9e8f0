//! What [`Stack`](recurrent_modules::Stack) adds around cells: weight drop, residual connections,
//! histories, packed batches.

mod directions;
mod histories;
mod named_states;
mod packed;
mod residual;
mod support;
mod weight_drop;
