//! `strftime_now`: the date and time a template may print.

use jiff::civil::DateTime;

/// The civil time that `strftime_now` formats.
pub type CivilTime = DateTime;

/// The local time of the machine, now.
pub fn local_now() -> CivilTime {
    jiff::Zoned::now().datetime()
}

/// Reads a time such as `2026-01-02T03:04:05`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_time(text: &str) -> Result<CivilTime, String> {
    text.trim()
        .parse::<DateTime>()
        .map_err(|e| format!("{text:?} is not a time such as 2026-01-02T03:04:05: {e}"))
}

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Formats as C's `strftime` does in the C locale. A directive that is not known stays as it is written.
pub fn strftime(time: CivilTime, format: &str) -> String {
    let mut out = String::new();
    let month = MONTHS.get((time.month() - 1) as usize).copied().unwrap_or_default();
    let day_name = DAYS.get(time.weekday().to_monday_zero_offset() as usize).copied().unwrap_or_default();
    let hour12 = if time.hour() % 12 == 0 { 12 } else { time.hour() % 12 };
    let sunday = i16::from(time.weekday().to_sunday_zero_offset());
    let monday = i16::from(time.weekday().to_monday_zero_offset());
    let yday = time.date().day_of_year();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let Some(mut directive) = chars.next() else {
            out.push('%');
            break;
        };
        let unpadded = directive == '-';
        if unpadded {
            directive = chars.next().unwrap_or('-');
        }
        let number = |value: i16, width: usize| {
            if unpadded { value.to_string() } else { format!("{value:0width$}") }
        };
        let text = match directive {
            'a' => day_name.chars().take(3).collect(),
            'A' => day_name.to_string(),
            'b' | 'h' => month.chars().take(3).collect(),
            'B' => month.to_string(),
            'c' => strftime(time, "%a %b %e %H:%M:%S %Y"),
            'C' => number(time.year() / 100, 2),
            'd' => number(time.day().into(), 2),
            'D' | 'x' => strftime(time, "%m/%d/%y"),
            'e' => format!("{:2}", time.day()),
            'f' => format!("{:06}", time.subsec_nanosecond() / 1000),
            'F' => strftime(time, "%Y-%m-%d"),
            'H' => number(time.hour().into(), 2),
            'I' => number(hour12.into(), 2),
            'j' => number(yday, 3),
            'k' => format!("{:2}", time.hour()),
            'l' => format!("{hour12:2}"),
            'm' => number(time.month().into(), 2),
            'M' => number(time.minute().into(), 2),
            'n' => "\n".into(),
            'p' => if time.hour() < 12 { "AM" } else { "PM" }.into(),
            'r' => strftime(time, "%I:%M:%S %p"),
            'R' => strftime(time, "%H:%M"),
            'S' => number(time.second().into(), 2),
            't' => "\t".into(),
            'T' | 'X' => strftime(time, "%H:%M:%S"),
            'u' => (monday + 1).to_string(),
            'U' => number((yday + 6 - sunday) / 7, 2),
            'w' => sunday.to_string(),
            'W' => number((yday + 6 - monday) / 7, 2),
            'y' => number(time.year() % 100, 2),
            'Y' => time.year().to_string(),
            // A local time has no zone here, as Python's naive datetime has none.
            'z' | 'Z' => String::new(),
            '%' => "%".into(),
            other => format!("%{}{other}", if unpadded { "-" } else { "" }),
        };
        out.push_str(&text);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_c_does() {
        let time = parse_time("2026-01-02T03:04:05").unwrap();
        assert_eq!(strftime(time, "%d %b %Y %H:%M:%S"), "02 Jan 2026 03:04:05");
        assert_eq!(strftime(time, "%A, %B %-d, %y %j %I %p %%"), "Friday, January 2, 26 002 03 AM %");
        assert_eq!(strftime(time, "%U %W %u %w %e|%q%"), "00 00 5 5  2|%q%");
    }
}
