//! A fault and how often it happened → wait this long, or give up. Pure: time and chance come as arguments.

use std::time::Duration;

/// Tries of one question, the first included.
pub const TRIES_MAX: u32 = 10;
/// The first wait is at most this long; each further one twice as long.
const WAIT_BASE: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A server that wants more than this is given up: a new Job can come back later.
pub const SERVER_WAIT_MAX: Duration = Duration::from_secs(600);

/// What to do about a fault that may pass.
#[derive(Debug, PartialEq)]
pub enum Next {
    Wait(Duration),
    /// No further try; the sentence says why.
    GiveUp(String),
}

/// `tries` so far, the failed one included; `server_wait` as the server gave it; `chance` from 0 to 1.
///
/// Full jitter, so that Jobs which were started together do not come back together.
pub fn next(tries: u32, server_wait: Option<Duration>, chance: f64) -> Next {
    if tries >= TRIES_MAX {
        return Next::GiveUp(format!("after {tries} tries"));
    }
    match server_wait {
        Some(wait) if wait > SERVER_WAIT_MAX => Next::GiveUp(format!(
            "the server wants a wait of {} s, more than the {} s that are accepted",
            wait.as_secs(),
            SERVER_WAIT_MAX.as_secs()
        )),
        Some(wait) => Next::Wait(wait),
        None => {
            let most = WAIT_BASE.saturating_mul(1 << (tries - 1).min(16)).min(WAIT_MAX);
            Next::Wait(most.mul_f64(chance.clamp(0.0, 1.0)))
        }
    }
}

/// How long the server wants us to wait, from `retry-after-ms` (milliseconds) or `Retry-After` (seconds, or a date).
/// `now` is in seconds since 1970. What cannot be read is the same as absent; a date that has passed is no wait.
pub fn server_wait(retry_after_ms: Option<&str>, retry_after: Option<&str>, now: u64) -> Option<Duration> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    if let Some(millis) = retry_after_ms.and_then(number) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let text = retry_after?;
    match number(text) {
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        None => Some(Duration::from_secs(seconds_of_date(text)?.saturating_sub(now))),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7) as seconds since 1970.
fn seconds_of_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.trim().split_once(", ")?;
    let mut words = rest.split_whitespace();
    let day: u64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)?;
    let year: u64 = words.next()?.parse().ok()?;
    let clock: Vec<u64> = words.next()?.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hour, minute, second] = clock[..] else { return None };
    if words.next() != Some("GMT")
        || !(1970..10_000).contains(&year)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    // Days since 1970 with years that begin in March, so that the leap day is the last one.
    let month = u64::try_from(month).ok()? + 1;
    let march_year = if month <= 2 { year - 1 } else { year };
    let march_month = (month + 9) % 12;
    let days =
        march_year * 365 + march_year / 4 - march_year / 100 + march_year / 400 + (march_month * 153 + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        let longest: Vec<u64> = (1..TRIES_MAX)
            .map(|tries| match next(tries, None, 1.0) {
                Next::Wait(wait) => wait.as_millis() as u64,
                Next::GiveUp(_) => 0,
            })
            .collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(next(1, None, 0.0), Next::Wait(Duration::ZERO));
        assert!(matches!(next(TRIES_MAX, None, 0.5), Next::GiveUp(_)));
    }

    #[test]
    fn the_server_is_obeyed_up_to_ten_minutes() {
        assert_eq!(next(1, Some(Duration::from_secs(600)), 0.0), Next::Wait(Duration::from_secs(600)));
        assert!(matches!(next(1, Some(Duration::from_secs(601)), 0.0), Next::GiveUp(_)));
    }

    #[test]
    fn reads_the_three_forms_of_a_wait() {
        let seconds = |text| server_wait(None, Some(text), 784_111_777).map(|wait| wait.as_secs_f64());
        assert_eq!(server_wait(Some("250"), Some("9"), 0), Some(Duration::from_millis(250)));
        assert_eq!(seconds("1.5"), Some(1.5));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10.0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:07 GMT"), Some(0.0));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-3"), None);
    }

    #[test]
    fn reads_dates_around_leap_days() {
        // GNU date: date -u -d '2028-02-29 12:00:00' +%s, and the day after.
        assert_eq!(seconds_of_date("Tue, 29 Feb 2028 12:00:00 GMT"), Some(1_835_438_400));
        assert_eq!(seconds_of_date("Wed, 01 Mar 2028 12:00:00 GMT"), Some(1_835_524_800));
        assert_eq!(seconds_of_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    }
}
