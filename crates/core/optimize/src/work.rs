//! The allowance of work: counted steps, and the caller's consent. Knows no clock.

/// How many steps lie between two questions to the caller.
const ASK_EVERY_STEPS: u64 = 200_000;

/// What is left to spend.
pub(crate) struct Work<'a> {
    spent: u64,
    steps_max: u64,
    ask_at: u64,
    stopped: bool,
    keep_going: &'a dyn Fn() -> bool,
}

impl<'a> Work<'a> {
    pub(crate) fn new(steps_max: u64, keep_going: &'a dyn Fn() -> bool) -> Self {
        Self { spent: 0, steps_max, ask_at: 0, stopped: false, keep_going }
    }

    pub(crate) fn spend(&mut self, steps: usize) {
        self.spent += steps as u64;
    }

    pub(crate) fn spent(&self) -> u64 {
        self.spent
    }

    /// Whether to go on.
    pub(crate) fn goes_on(&mut self) -> bool {
        if self.spent >= self.steps_max {
            self.stopped = true;
        } else if !self.stopped && self.spent >= self.ask_at {
            self.ask_at = self.spent + ASK_EVERY_STEPS;
            self.stopped = !(self.keep_going)();
        }
        !self.stopped
    }
}
