use std::process::ExitCode;

/// For librdkafka, too, which allocates on one thread and frees on another: see docs/decisions/0003.
#[cfg(feature = "vendored")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    docket::cli::main()
}
