//! What a script relies on: what it is told, in which order, and when the program may end.

use crate::folder::Folder;
use crate::gateway::Gateway;
use ringline_client::{Client, Config, ConversationId, Event, EventStream, TransportKind, Trust};
use ringline_terminal::plain::{self, PlainError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines};
use tokio::task::JoinHandle;

/// Long enough for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes in either pipe.
const PIPE_BYTES: usize = 64 * 1024;

async fn client(gateway: &Gateway, folder: &Folder, name: &str) -> Client {
    let mut config = Config::new(gateway.address(TransportKind::Native), folder.path());
    config.trust = Trust::CertFile(gateway.certificate.clone());
    let client = Client::open(config).await.expect("opened");
    client.register(name, &name.to_uppercase(), "password").await.expect("registered");
    client
}

/// A program in plain mode, and the script that talks to it.
struct Script {
    input: DuplexStream,
    output: Lines<BufReader<DuplexStream>>,
    program: JoinHandle<Result<(), PlainError>>,
}

impl Script {
    fn start(client: Client) -> Self {
        let (input, of_program) = tokio::io::duplex(PIPE_BYTES);
        let (to_script, output) = tokio::io::duplex(PIPE_BYTES);
        let program = tokio::spawn(plain::run(client, of_program, to_script));
        Self { input, output: BufReader::new(output).lines(), program }
    }

    async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("the program listens");
    }

    /// The next line that begins with this word, without it.
    async fn hear(&mut self, word: &str) -> String {
        let heard = async {
            loop {
                let line = self.output.next_line().await.expect("text").expect("the program goes on");
                if let Some((first, rest)) = line.split_once(' ')
                    && first == word
                {
                    return rest.to_owned();
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("no line {word:?}"))
    }

    /// The input ends; what the program still says, and how it ends.
    async fn end(mut self) -> (Vec<String>, Result<(), PlainError>) {
        drop(self.input);
        let rest = async {
            let mut lines = Vec::new();
            while let Some(line) = self.output.next_line().await.expect("text") {
                lines.push(line);
            }
            (lines, self.program.await.expect("no panic"))
        };
        tokio::time::timeout(PATIENCE, rest).await.expect("it ends")
    }
}

async fn until<T>(events: &mut EventStream, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = wanted(events.next().await.expect("the client goes on")) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("the event comes")
}

#[tokio::test]
async fn a_script_chats_and_what_was_printed_is_read() {
    let gateway = Gateway::start().await;
    let (of_ada, of_bob) = (Folder::new("terminal"), Folder::new("terminal"));
    let ada = client(&gateway, &of_ada, "ada").await;
    let bob = client(&gateway, &of_bob, "bob").await;
    let mut events = bob.events();
    let mut script = Script::start(ada);
    script.say("too early").await;
    assert_eq!(script.hear("error").await, "open a conversation first");
    script.say("/with bob").await;
    let opened = script.hear("open").await;
    assert!(opened.ends_with(" BOB"), "{opened}");
    script.say("//slash").await;
    let queued = script.hear("queued").await;
    assert_eq!(script.hear("accepted").await, format!("{queued} 2"));
    let room: ConversationId = until(&mut events, |event| match event {
        Event::Message(message) if message.text() == "/slash" => Some(message.conversation),
        _ => None,
    })
    .await;

    // What a terminal would obey is made harmless, and one message is one line.
    bob.send_text(room, "red\u{1b}[31m\nline").await.expect("taken over");
    let heard = loop {
        let heard = script.hear("message").await;
        if heard.contains(" bob ") {
            break heard;
        }
    };
    assert_eq!(heard, format!("{room} 3 bob red\u{fffd}[31m\u{fffd}line"));
    until(&mut events, |event| match event {
        Event::Receipt { read_up_to, .. } if read_up_to.0 == 3 => Some(()),
        _ => None,
    })
    .await;
    script.say("/quit").await;
    let (_, ended) = script.end().await;
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn the_end_of_the_input_waits_until_everything_is_durable() {
    let gateway = Gateway::start().await;
    let (of_ada, of_bob) = (Folder::new("terminal"), Folder::new("terminal"));
    let ada = client(&gateway, &of_ada, "ada").await;
    let _bob = client(&gateway, &of_bob, "bob").await;
    let room = ada.create_direct("bob").await.expect("created");
    let mut script = Script::start(ada);
    script.say(&format!("/open {room}")).await;
    let texts: Vec<String> = (0..50).map(|number| format!("text {number}")).collect();
    for text in &texts {
        script.say(text).await;
    }
    let (lines, ended) = script.end().await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(gateway.texts(room), texts);
    let count = |word: &str| lines.iter().filter(|line| line.split(' ').next() == Some(word)).count();
    assert_eq!((count("queued"), count("accepted")), (50, 50));
}

#[tokio::test]
async fn a_refused_message_is_told_and_not_waited_for() {
    let gateway = Gateway::start().await;
    let (of_ada, of_bob) = (Folder::new("terminal"), Folder::new("terminal"));
    let ada = client(&gateway, &of_ada, "ada").await;
    let _bob = client(&gateway, &of_bob, "bob").await;
    ada.create_direct("bob").await.expect("created");
    let mut script = Script::start(ada);
    script.say("/open BOB").await;
    script.say("refuse me").await;
    let (lines, ended) = script.end().await;
    assert!(ended.is_ok(), "{ended:?}");
    let refused = lines.iter().filter(|line| line.starts_with("refused ")).count();
    assert_eq!(refused, 1, "{lines:?}");
}

#[tokio::test]
async fn whoever_is_sent_to_help_is_told_what_there_is() {
    let gateway = Gateway::start().await;
    let folder = Folder::new("terminal");
    let mut script = Script::start(client(&gateway, &folder, "ada").await);
    script.say("/chat bob").await;
    script.say("/help").await;
    let (lines, ended) = script.end().await;
    assert!(ended.is_ok(), "{ended:?}");
    // Help that was asked for is no error: whoever looks for errors finds that of the unknown command alone.
    let count = |word: &str| lines.iter().filter(|line| line.split(' ').next() == Some(word)).count();
    assert_eq!((count("error"), count("help")), (1, 1), "{lines:?}");
    let has = |word: &str, part: &str| lines.iter().any(|line| line.starts_with(word) && line.contains(part));
    assert!(has("error ", "/help tells what is"), "{lines:?}");
    assert!(has("help ", "/with, /group, /open"), "{lines:?}");
}

#[tokio::test]
async fn without_a_log_in_it_says_so() {
    let gateway = Gateway::start().await;
    let folder = Folder::new("terminal");
    let mut config = Config::new(gateway.address(TransportKind::Native), folder.path());
    config.trust = Trust::CertFile(gateway.certificate.clone());
    let script = Script::start(Client::open(config).await.expect("opened"));
    let (_, ended) = script.end().await;
    assert!(matches!(ended, Err(PlainError::LoggedOut)), "{ended:?}");
}
