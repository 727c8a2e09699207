//! `uring-pool bench`: loads a server, and says how it was. Only this command's exit statuses are
//! those of load generators: 0, 2, 3, 98, 99.

mod flags;

use clap::Args;
use uring_pool::bench::{Finished, Plan, Running, StartError, record::Collector};

use super::Failure;
use flags::LoadFlags;

/// Wrong use of the command line.
pub(super) const EX_USAGE: u8 = 2;
/// The target can't be reached, or failed requests.
const EX_TARGET: u8 = 3;

#[derive(Args, Clone, Debug)]
pub(super) struct BenchFlags {
    #[command(flatten)]
    load: LoadFlags,
}

/// Runs it.
pub(super) fn run(flags: &BenchFlags) -> Result<(), Failure> {
    let plan = Plan::new(&flags.load.wanted()?).map_err(|error| Failure::new(EX_USAGE, error))?;
    let mut collector = Collector::new(plan.recording());
    let running = Running::start(&plan, &[], &mut collector).map_err(start_failure)?;
    while !running.wait(std::time::Duration::from_millis(50)) {
        collector.collect();
    }
    let Finished { rests, examples, enters, cpu_nanos } =
        running.finish().map_err(|error| Failure::new(EX_TARGET, error))?;
    let record = collector.finish(rests);
    let total = record.total();
    let seconds = record.end as f64 / 1e9;
    println!("{total:?}");
    println!("{examples:?}");
    println!(
        "{:.0} requests/s, {:.2} us of CPU a request, {:.3} enters a request",
        total.answers as f64 / seconds,
        cpu_nanos as f64 / 1e3 / total.answers as f64,
        enters as f64 / total.answers as f64
    );
    let response = record.times(
        if plan.is_open_loop() {
            uring_pool::bench::record::Clock::Response
        } else {
            uring_pool::bench::record::Clock::Service
        },
        0,
    );
    for part in [0.5, 0.9, 0.99, 0.999, 1.0] {
        println!("p{part}: {} us", response.value_at_quantile(part) / 1000);
    }
    Ok(())
}

fn start_failure(error: StartError) -> Failure {
    let code = match error {
        StartError::Budget(_) => EX_USAGE,
        _ => EX_TARGET,
    };
    Failure::new(code, error)
}
