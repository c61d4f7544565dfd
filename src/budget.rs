//! What is spent, what the next call may cost, and when the model must be told. Pure.
//!
//! A budget is checked before each call, so it can be exceeded by what that call takes, and by no more than its answer: a
//! call whose question alone goes over the budget is not made. Surprising: where nobody limits an answer, one of ordinary
//! length is allowed on top, because then nothing is known of what a call may cost and giving up early helps nobody.

use crate::config::Limits;
use crate::conversation::Usage;
use crate::outcome::Spent;

/// Output tokens of an ordinary answer, where no limit says what it may have.
const ANSWER_TOKENS: u64 = 4096;
/// Bytes of English text and JSON for a token (OpenAI's help page "What are tokens", read 2026-11).
const BYTES_PER_TOKEN: u64 = 4;

/// What is known of a call before it is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct NextCall {
    pub input_tokens: u64,
    /// The limit on its answer, where there is one.
    pub answer_tokens_max: Option<u64>,
}

/// One budget: its name in THOUGHTMESH_LIMITS, how much of it is used, and how much there is.
struct Budget {
    name: &'static str,
    used: u64,
    max: u64,
}

/// The budgets of every call. Turns are the worker's alone.
fn of_calls(limits: &Limits, spent: &Spent) -> [Option<Budget>; 2] {
    [
        limits.llm_calls_max.map(|max| Budget { name: "max_llm_calls", used: spent.llm_calls, max }),
        limits.total_tokens_max.map(|max| Budget { name: TOKENS, used: spent.usage.total_tokens(), max }),
    ]
}

const TOKENS: &str = "max_total_tokens";

/// The budget that leaves no room for this call, in words. One that is reached exactly is spent.
pub fn spent_for_call(limits: &Limits, spent: &Spent, next: NextCall) -> Option<String> {
    of_calls(limits, spent).into_iter().flatten().find_map(|budget| in_words_if_spent(&budget, next))
}

/// The budget that leaves no room for another turn of the worker, in words.
pub fn spent_for_turn(limits: &Limits, spent: &Spent, next: NextCall) -> Option<String> {
    let turns = Budget { name: "max_turns", used: spent.turns, max: limits.turns_max };
    in_words_if_spent(&turns, next).or_else(|| spent_for_call(limits, spent, next))
}

fn in_words_if_spent(budget: &Budget, next: NextCall) -> Option<String> {
    let Budget { name, used, max } = budget;
    if used >= max {
        return Some(format!("{name} of {max} ({used} used)"));
    }
    let allowance = if next.answer_tokens_max.is_some() { 0 } else { ANSWER_TOKENS };
    let is_too_much = *name == TOKENS && used.saturating_add(next.input_tokens) > max.saturating_add(allowance);
    is_too_much
        .then(|| format!("{name} of {max} ({used} used, and the next call would take {} or more)", next.input_tokens))
}

/// The budget of which a tenth or less is left, or not two turns like the next one, in words. Nothing before the first turn.
pub fn low_for_turn(limits: &Limits, spent: &Spent, next: NextCall) -> Option<String> {
    if spent.turns == 0 {
        return None;
    }
    let turns = Budget { name: "max_turns", used: spent.turns, max: limits.turns_max };
    let all = [Some(turns)].into_iter().chain(of_calls(limits, spent));
    all.flatten().find_map(|Budget { name, used, max }| {
        let left = max.saturating_sub(used);
        let of_two = if name == TOKENS { next.input_tokens.saturating_mul(2) } else { 2 };
        (left <= max / 10 || left < of_two).then(|| format!("{left} of {max} left of {name}"))
    })
}

/// Turns bytes of a conversation into tokens, by what the provider counted last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    bytes: u64,
    tokens: u64,
}

impl Meter {
    /// A question of this many bytes took these tokens.
    pub fn measure(&mut self, bytes: usize, usage: Usage) {
        *self = Meter { bytes: bytes as u64, tokens: usage.input_tokens };
    }

    /// The input tokens of a question of this many bytes.
    pub fn tokens(&self, bytes: usize) -> u64 {
        let bytes = bytes as u64;
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.tokens.saturating_add(more.div_ceil(BYTES_PER_TOKEN)),
            None => self.tokens.saturating_mul(bytes) / self.bytes.max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(tokens: Option<u64>, calls: Option<u64>) -> Limits {
        Limits {
            turns_max: 200,
            total_tokens_max: tokens,
            llm_calls_max: calls,
            output_tokens_per_call_max: None,
            finish_rejections_max: 3,
            stalled_turns_max: 10,
        }
    }

    fn used(turns: u64, tokens: u64) -> Spent {
        let usage = Usage { input_tokens: tokens, ..Usage::default() };
        Spent { turns, llm_calls: turns, usage, ..Spent::default() }
    }

    #[test]
    fn a_call_whose_question_goes_over_the_budget_is_not_made() {
        let limits = limits(Some(10_000), None);
        let is_spent = |tokens, next| spent_for_turn(&limits, &used(1, tokens), next).is_some();
        let limited = |input_tokens| NextCall { input_tokens, answer_tokens_max: Some(500) };
        let unlimited = |input_tokens| NextCall { input_tokens, answer_tokens_max: None };
        assert!(!is_spent(9000, limited(1000)) && is_spent(9000, limited(1001)));
        assert!(!is_spent(9000, unlimited(5096)) && is_spent(9000, unlimited(5097)));
        assert!(is_spent(10_000, limited(0)) && !is_spent(9_999, limited(1)));
    }

    #[test]
    fn the_last_tenth_is_told() {
        let next = NextCall::default();
        let low = |turns| low_for_turn(&limits(None, None), &used(turns, 0), next);
        assert_eq!((low(179), low(180)), (None, Some("20 of 200 left of max_turns".to_owned())));
        assert!(low_for_turn(&limits(None, Some(3)), &used(2, 0), next).is_some());
        assert!(low_for_turn(&limits(None, Some(1)), &used(0, 0), next).is_none());
        let next = NextCall { input_tokens: 100, answer_tokens_max: None };
        assert!(low_for_turn(&limits(Some(1000), None), &used(5, 700), next).is_none());
        assert!(low_for_turn(&limits(Some(1000), None), &used(5, 801), next).is_some());
    }

    #[test]
    fn the_meter_follows_what_the_provider_counted() {
        let mut meter = Meter::default();
        assert_eq!(meter.tokens(400), 100);
        meter.measure(1000, Usage { input_tokens: 500, ..Usage::default() });
        assert_eq!((meter.tokens(1000), meter.tokens(1400), meter.tokens(500)), (500, 600, 250));
    }
}
