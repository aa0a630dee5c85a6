//! Taking turns back. An exchange is a message of the user with the answer to it.

use super::conversation::{Conversation, Message, Role};

impl Conversation {
    /// The last message, if it waits for an answer.
    pub fn unanswered(&self) -> Option<&Message> {
        self.messages.last().filter(|m| m.role == Role::User)
    }
    /// Take back the last exchange, or the message that has no answer; what the user had said.
    pub fn undo(&mut self) -> Option<Message> {
        let asked = self.messages.iter().rposition(|m| m.role == Role::User)?;
        self.messages.drain(asked..).next()
    }
    /// Take back the last answer; whether there was one.
    pub fn retract(&mut self) -> bool {
        self.messages.pop_if(|m| m.role == Role::Assistant).is_some()
    }
    /// Drop the oldest exchange, but not the last message of the user; whether there was one to drop.
    pub fn drop_oldest(&mut self) -> bool {
        let mut asked = self.messages.iter().enumerate().filter(|(_, m)| m.role == Role::User);
        let next = asked.nth(1).map(|(at, _)| at);
        next.map(|at| self.messages.drain(..at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(turns: &[(Role, &str)]) -> Conversation {
        let messages = turns.iter().map(|(role, text)| Message::new(*role, *text)).collect();
        Conversation { system: None, messages }
    }
    fn texts(conversation: &Conversation) -> Vec<&str> {
        conversation.messages.iter().map(|m| m.content.as_str()).collect()
    }
    const TWO: [(Role, &str); 4] =
        [(Role::User, "a"), (Role::Assistant, "b"), (Role::User, "c"), (Role::Assistant, "d")];

    #[test]
    fn undo_takes_an_exchange_or_a_question() {
        let mut c = conversation(&TWO);
        assert_eq!(c.undo().map(|m| m.content), Some("c".into()));
        assert_eq!(texts(&c), ["a", "b"]);
        c.messages.push(Message::new(Role::User, "e"));
        assert_eq!(c.undo().map(|m| m.content), Some("e".into()));
        assert_eq!(c.undo().map(|m| m.content), Some("a".into()));
        assert_eq!(c.undo(), None);
    }

    #[test]
    fn only_an_answer_is_retracted() {
        let mut c = conversation(&TWO);
        assert!(c.retract());
        assert_eq!(c.unanswered().map(|m| m.content.as_str()), Some("c"));
        assert!(!c.retract());
    }

    #[test]
    fn the_oldest_exchange_is_dropped_but_never_the_question_at_hand() {
        let mut c = conversation(&TWO);
        c.messages.push(Message::new(Role::User, "e"));
        assert!(c.drop_oldest());
        assert_eq!(texts(&c), ["c", "d", "e"]);
        assert!(c.drop_oldest());
        assert!(!c.drop_oldest());
        assert_eq!(texts(&c), ["e"]);
    }
}
