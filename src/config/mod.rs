//! Values that settings are made of: durations and sizes (`units`), secrets and where they come from
//! (`secrets`), files whose change is one of the pipeline (`tracked`), text that has a form of its own
//! (`forms`). Which settings there are, each room says for itself, in its `config`.

pub mod forms;
pub mod secrets;
pub mod tracked;
pub mod units;
