//! A whole stanza as a small tree. quick-xml reads it; the scanner has bounded its size and depth before.

use crate::agent::protocol::ProtocolFault;
use crate::peers::partial::fault;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// An element. Names are as they were written: servers of ours use prefixes for the stream itself only.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// Its attributes, `xmlns` among them.
    pub attributes: Vec<(String, String)>,
    /// Elements within it.
    pub children: Vec<Element>,
    /// Its text, without that of its children.
    pub text: String,
}

impl Element {
    /// Reads one element.
    pub fn read(bytes: &[u8]) -> Result<Self, ProtocolFault> {
        let text = std::str::from_utf8(bytes).map_err(|_| fault("a stanza that is not UTF-8"))?;
        let bad = |error: &dyn std::fmt::Display| fault(format!("a stanza that is not XML: {error}"));
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Self> = Vec::new();
        loop {
            let whole = match reader.read_event().map_err(|error| bad(&error))? {
                Event::Start(tag) => {
                    open.push(Self::opened(&tag)?);
                    continue;
                }
                Event::Empty(tag) => Self::opened(&tag)?,
                Event::End(_) => open.pop().ok_or_else(|| fault("an end without a beginning"))?,
                Event::Text(text) => {
                    inner(&mut open)?.text.push_str(&text.xml10_content());
                    continue;
                }
                Event::GeneralRef(entity) => {
                    let character = match entity.resolve_char_ref().map_err(|error| bad(&error))? {
                        Some(character) => character,
                        None => named(&entity).ok_or_else(|| fault(format!("an entity {:?}", &*entity)))?,
                    };
                    inner(&mut open)?.text.push(character);
                    continue;
                }
                Event::Eof => return Err(fault("a stanza that does not end")),
                other => return Err(fault(format!("{other:?}: not allowed in a stanza"))),
            };
            match open.last_mut() {
                Some(parent) => parent.children.push(whole),
                None => return Ok(whole),
            }
        }
    }

    fn opened(tag: &BytesStart<'_>) -> Result<Self, ProtocolFault> {
        let bad = |error: &dyn std::fmt::Display| fault(format!("a tag that is not XML: {error}"));
        let name = tag.name().into_inner().to_owned();
        let mut attributes = Vec::new();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| bad(&error))?;
            let key = attribute.key.into_inner().to_owned();
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| bad(&error))?;
            attributes.push((key, value.into_owned()));
        }
        Ok(Self { name, attributes, children: Vec::new(), text: String::new() })
    }

    /// An attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first element of that name and namespace within it.
    pub fn child(&self, name: &str, namespace: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.is(name, namespace))
    }

    /// The first element of that name within it, in its own namespace.
    pub fn inner(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Whether it has that name and declares that namespace.
    pub fn is(&self, name: &str, namespace: &str) -> bool {
        self.name == name && self.attribute("xmlns") == Some(namespace)
    }
}

fn inner(open: &mut [Element]) -> Result<&mut Element, ProtocolFault> {
    open.last_mut().ok_or_else(|| fault("text outside of a stanza"))
}

fn named(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "apos" => '\'',
        "quot" => '"',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_becomes_a_tree() {
        let text = "<message from='a&amp;b' id=\"1\"><body>x &lt;&#65;</body><e xmlns='n'/>y</message>";
        let element = Element::read(text.as_bytes()).expect("well formed");
        assert_eq!((element.attribute("from"), element.attribute("to")), (Some("a&b"), None));
        assert_eq!(element.inner("body").map(|body| body.text.as_str()), Some("x <A"));
        assert!(element.child("e", "n").is_some() && element.child("e", "m").is_none());
        assert_eq!(element.text, "y");
    }

    #[test]
    fn what_is_not_xml_is_refused() {
        for bad in [
            &b"<a></b>"[..],
            b"<a b></a>",
            b"<a b='1' b='2'/>",
            b"<a>&nbsp;</a>",
            b"<a>&#0;</a>",
            b"<a>&#xD800;</a>",
            b"<a>\xff</a>",
            b"<a><!-- --></a>",
            b"<a>",
            b"text",
            b"",
        ] {
            assert!(Element::read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
