//! docket
pub mod decision;
pub mod pipeline;
pub mod sink { pub mod loki { 
#[derive(Debug, Clone)]
pub struct LabelSource; impl LabelSource { pub fn parse(_l:&str,_s:&str)->Result<LabelSource,String>{Ok(LabelSource)} } } }
