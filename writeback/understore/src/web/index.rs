//! The names in a page that a web server makes of a folder: the targets of its links.

use crate::check_key;

/// Names of the folder, in byte order, and whether each is a folder. Links that lead elsewhere, or sort the page, are none.
pub(super) fn names(page: &str) -> Vec<(String, bool)> {
    let mut names: Vec<(String, bool)> = targets(page).filter_map(name).collect();
    names.sort();
    names.dedup_by(|a, b| a.0 == b.0);
    names
}

/// What `href="…"` says, whatever the case and the quotes.
fn targets(page: &str) -> impl Iterator<Item = &str> {
    let starts = page.match_indices(['h', 'H']).map(|(at, _)| at);
    starts.filter_map(|at| {
        let rest = page.get(at..at + 5).filter(|word| word.eq_ignore_ascii_case("href="));
        let value = rest.and_then(|_| page.get(at + 5..))?;
        let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        value[1..].split_once(quote).map(|(target, _)| target)
    })
}

fn name(target: &str) -> Option<(String, bool)> {
    let target = target.strip_prefix("./").unwrap_or(target);
    let (target, is_dir) = match target.strip_suffix('/') {
        Some(target) => (target, true),
        None => (target, false),
    };
    if target.contains(['/', '?', '#', ':']) {
        return None;
    }
    let unescaped = quick_xml::escape::unescape(target).ok()?;
    let name = percent_encoding::percent_decode_str(&unescaped).decode_utf8().ok()?;
    let plain = !name.is_empty() && !name.contains('/') && check_key(&name).is_ok();
    plain.then(|| (name.into_owned(), is_dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_three_servers_are_read() {
        let nginx = "<pre><a href=\"../\">../</a>\n<a href=\"day%3D1/\">day=1/</a> - \n<a href=\"a%20b.bin\">a b.bin</a> 7\n</pre>";
        let apache = "<A HREF=\"?C=N;O=D\">Name</A> <A HREF=\"/up/\">Parent</A> <A HREF=\"a%20b.bin\">a</A><A HREF=\"day%3D1/\">d</A>";
        let python = "<li><a href='a%20b.bin'>a b.bin</a></li><li><a href='./day%3D1/'>day=1/</a></li><a href='https://x/y'>x</a>";
        for page in [nginx, apache, python] {
            let expected = [("a b.bin".to_owned(), false), ("day=1".to_owned(), true)];
            assert_eq!(names(page), expected, "{page}");
        }
    }

    #[test]
    fn no_page_makes_a_name_that_leaves_the_folder() {
        for target in [
            "..",
            "%2e%2e",
            "..%2fx",
            "a%2fb",
            "a%00",
            "",
            "/",
            "#x",
            "javascript:x",
            "a/b",
        ] {
            assert_eq!(names(&format!("<a href=\"{target}\">x</a>")), [], "{target}");
        }
        assert_eq!(names("href href= href=\" hreF='"), []);
    }
}
