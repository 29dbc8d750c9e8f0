//! Where a step is among all steps.

use super::pointwise::StepRowsLaunch;

/// Which way the loop over steps goes.
#[derive(Debug, Clone, Copy)]
pub enum Direction {
    /// From the first step to the last.
    Forward,
    /// From the last step to the first.
    Backward,
}

/// The rows of a step.
///
/// # Arguments
/// * `counts` - rows of each step
/// * `offsets` - the first row of each step, and the number of rows
pub fn step_rows(
    counts: &[usize],
    offsets: &[usize],
    step: usize,
    direction: Direction,
) -> StepRowsLaunch {
    let neighbour = match direction {
        Direction::Forward => offsets[step + 1],
        Direction::Backward => step.checked_sub(1).map_or(0, |step| offsets[step]),
    };
    StepRowsLaunch {
        count: counts[step] as u32,
        first: offsets[step] as u32,
        neighbour: neighbour as u32,
        next_count: counts.get(step + 1).copied().unwrap_or(0) as u32,
        is_first_step: u32::from(step == 0),
    }
}
