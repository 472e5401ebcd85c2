//! The pipeline file: what it may say (`model` and `spikes`, also the source of the JSON Schema), how it is read with
//! places kept (`yaml`), what is wrong with it (`check`), values from the environment and files
//! (`secrets`), files whose change is one of the pipeline (`watched`), what the running parts get (`load`),
//! how much of the memory each may use (`memory`), and a file's own test cases (`cases`).

pub mod cases;
pub mod check;
pub mod door;
pub mod load;
pub mod memory;
pub mod model;
pub mod protect;
pub mod push;
pub mod secrets;
pub mod spikes;
pub mod units;
pub mod watched;
pub mod yaml;

pub use load::{LoadError, Pipeline, load, parse};
pub use model::File;
