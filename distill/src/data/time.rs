//! Times as files write them: numbers of any unit, or ISO 8601 dates.

use super::error::{Fault, excerpt};

/// A moment; the order is the order in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Time {
    /// Whole units, rounded down.
    pub(super) whole: i64,
    /// Billionths of a unit on top.
    pub(super) billionths: u32,
}

/// How a time was written; a column has one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeKind {
    Number,
    Date,
}

const BILLION: u32 = 1_000_000_000;
const HINT: &str = "times are numbers (seconds, milliseconds, ...) or dates like 2024-05-31 or 2024-05-31T18:30:00Z";

/// Reads a number or a date.
pub(super) fn parse(text: &str) -> Result<(Time, TimeKind), Fault> {
    if let Some(time) = decimal(text) {
        return Ok((time, TimeKind::Number));
    }
    if let Ok(number) = text.parse::<f64>() {
        return Ok((from_f64(number)?, TimeKind::Number));
    }
    match date(text) {
        Some(time) => Ok((time, TimeKind::Date)),
        None => Err(Fault::new("a time", excerpt(text)).hint(HINT)),
    }
}

/// A floating-point time, split into whole units and the rest.
pub(super) fn from_f64(number: f64) -> Result<Time, Fault> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: beyond it whole units are no longer exact
    if !number.is_finite() || number.abs() > EXACT {
        return Err(Fault::new(
            "a finite time within +-2^53",
            format!("{number}"),
        ));
    }
    let whole = number.floor();
    let billionths = ((number - whole) * f64::from(BILLION)) as u32;
    Ok(Time {
        whole: whole as i64,
        billionths: billionths.min(BILLION - 1),
    })
}

/// Parts of a second (of `per_second` each) since 1970, as seconds.
pub(super) fn from_parts(parts: i64, per_second: i64) -> Time {
    Time {
        whole: parts.div_euclid(per_second),
        billionths: (parts.rem_euclid(per_second) * (i64::from(BILLION) / per_second)) as u32,
    }
}

/// `-12.5` without the rounding of floating point; `None` for anything but digits and one point.
fn decimal(text: &str) -> Option<Time> {
    let (digits, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || digits.ends_with(['-', '+']) {
        return None;
    }
    let whole: i64 = digits.parse().ok()?;
    let billionths = fraction_billionths(fraction);
    if !text.starts_with('-') || billionths == 0 {
        return Some(Time { whole, billionths });
    }
    Some(Time {
        whole: whole.checked_sub(1)?,
        billionths: BILLION - billionths,
    })
}

/// The first nine digits after the point.
fn fraction_billionths(digits: &str) -> u32 {
    let digits = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
    digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
}

/// `2024-05-31`, `2024-05-31 18:30`, `2024-05-31T18:30:00.25+02:00`, as seconds since 1970.
fn date(text: &str) -> Option<Time> {
    let (day, rest) = text.split_at_checked(10)?;
    let bytes = day.as_bytes();
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let (year, month, day) = (
        number(&day[..4])?,
        number(&day[5..7])?,
        number(&day[8..10])?,
    );
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let (seconds, billionths) = match rest.strip_prefix(['T', 't', ' ']) {
        Some(clock) => time_of_day(clock)?,
        None if rest.is_empty() => (0, 0),
        None => return None,
    };
    Some(Time {
        whole: days_from_civil(year, month, day) * 86_400 + seconds,
        billionths,
    })
}

/// Seconds of the day in UTC (may be negative through the offset) and billionths.
fn time_of_day(text: &str) -> Option<(i64, u32)> {
    let (clock, offset) = split_offset(text)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut parts = clock.split(':').map(number);
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    // 60 is the leap second of ISO 8601.
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second - offset;
    Some((seconds, fraction_billionths(fraction)))
}

/// Splits `Z`, `+02:00` or `-0530` off; the offset in seconds.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else {
        return Some((text, 0));
    };
    let sign = if text[at..].starts_with('-') { -1 } else { 1 };
    let offset = text[at + 1..].replace(':', "");
    let (hours, minutes) = match offset.len() {
        2 => (number(&offset)?, 0),
        4 => (number(offset.get(..2)?)?, number(offset.get(2..)?)?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some((&text[..at], sign * (hours * 3600 + minutes * 60)))
}

/// Two or four digits and nothing else.
fn number(digits: &str) -> Option<i64> {
    let plain = matches!(digits.len(), 2 | 4) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar, with years counted from March so
/// that the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

/// The day of a moment given in seconds since 1970, as `2024-05-31`; `None` outside 1970..=9999.
pub(super) fn day_of(seconds: i64) -> Option<String> {
    const YEAR_10000: i64 = 253_402_300_800;
    if !(0..YEAR_10000).contains(&seconds) {
        return None;
    }
    let days = seconds / 86_400;
    let mut year = 1970 + days / 366;
    while days_from_civil(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_from_civil(year, month + 1, 1) <= days {
        month += 1;
    }
    let day = days - days_from_civil(year, month, 1) + 1;
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> i64 {
        parse(text).expect("a time").0.whole
    }

    #[test]
    fn numbers_keep_their_unit_and_their_fraction() {
        assert_eq!(seconds("881250949"), 881_250_949);
        assert_eq!(seconds("1700000000123"), 1_700_000_000_123);
        let order = ["-1.5", "-1.25", "-1", "0", "0.000000001", "0.5", "1e1"];
        let times: Vec<Time> = order.map(|t| parse(t).expect("a time").0).to_vec();
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
        assert_eq!(times[0].whole, -2);
        let fine = parse("1700000000.123456789").expect("a time").0;
        assert_eq!(fine.billionths, 123_456_789);
    }

    /// Reference: `date -u -d TEXT +%s`.
    #[test]
    fn dates() {
        assert_eq!(seconds("1970-01-01"), 0);
        assert_eq!(seconds("2000-02-29"), 951_782_400);
        assert_eq!(seconds("2024-05-31T18:30:00Z"), 1_717_180_200);
        assert_eq!(seconds("2024-05-31T18:30:00+02:00"), 1_717_173_000);
        assert_eq!(seconds("2024-05-31 18:30"), 1_717_180_200);
        assert_eq!(seconds("1969-12-31T23:59:59-0030"), 1799);
        assert_eq!(seconds("0001-01-01"), -62_135_596_800);
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "abc",
            "nan",
            "inf",
            "-inf",
            "1e300",
            "1.2.3",
            "-",
            "+",
            ".",
            "2024-13-01",
            "2023-02-29",
            "2024-5-1",
            "01/02/2024",
            "2024-05-31T25:00",
            "2024-05-31T10:00+99:00",
            "2024-05-31x",
            "ééééé",
            "2024-05-31Té:00",
            "2024-05-31T10:00+é1",
        ] {
            let fault = parse(text).expect_err(text);
            assert!(fault.expected.contains("time"), "{text}: {fault}");
        }
    }

    #[test]
    fn days_come_back() {
        for day in [
            "1970-01-01",
            "2000-02-29",
            "1999-12-31",
            "2024-12-31",
            "9999-12-31",
            "2100-02-28",
        ] {
            assert_eq!(day_of(seconds(day)).as_deref(), Some(day));
            assert_eq!(day_of(seconds(day) + 86_399).as_deref(), Some(day));
        }
        assert_eq!((day_of(-1), day_of(i64::MAX)), (None, None));
    }
}
