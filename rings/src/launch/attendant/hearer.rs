//! Hears the agent's calls and answers each: a refused one with the ring's errno, a creating one by whoever makes names, and one
//! that is only looked at by letting it go on.

use std::rc::Rc;
use std::time::Instant;

use super::answer::{Answer, Caller, Request};
use super::seen;
use super::teller::{Key, Teller};
use crate::notice::{COMM_BYTES_MAX, Notice, What, escaped};
use crate::ring::Ring;
use crate::seccomp::policy::{Call, Decision, Notified, Policy, Refusal};
use crate::seccomp::{self, Notify, Options};
use crate::sys::notify::{Listener, Reply, Waiting};

/// What answers an agent.
pub(super) struct Hearer {
    ring: Ring,
    options: Options,
    policy: Policy,
    names: Option<Box<dyn Answer>>,
}

impl Hearer {
    pub(super) fn new(ring: Ring, options: Options, names: Option<Box<dyn Answer>>) -> Hearer {
        Hearer { ring, options, policy: seccomp::builtin::policy(ring, &options), names }
    }

    /// Answers one call, and tells of it.
    pub(super) fn hear(&mut self, listener: &Rc<Listener>, waiting: &Waiting, teller: &mut Teller) {
        // The kernel doesn't say why it asks: the filter is this policy, compiled.
        let reply = match self.policy.decide(&waiting.call) {
            Decision::Notify(Notified::Refused(refusal)) => self.refuse(waiting, refusal, teller),
            Decision::Notify(Notified::Creating) => self.create(listener, waiting, teller),
            Decision::Notify(Notified::Observed) => {
                self.observe(listener, waiting, teller);
                Reply::Continue
            }
            // Never asked for: a filter of the agent's own has no listener, so its questions don't come here.
            Decision::Allow | Decision::Refuse(_) => Reply::Errno(libc::ENOSYS),
        };
        // A caller that is gone is no error; with any other the listener is of no use, and poll(2) says so next.
        let _ = listener.reply(waiting.id, reply);
    }

    fn refuse(&self, waiting: &Waiting, refusal: Refusal, teller: &mut Teller) -> Reply {
        let errno = match refusal {
            Refusal::NotPermitted | Refusal::KillProcess => libc::EPERM,
            Refusal::NoSuchCall => libc::ENOSYS,
        };
        let Call { number, args, .. } = waiting.call;
        teller.notice(Key::Refused(waiting.tid, number), Instant::now(), || {
            let arch = self.options.arch;
            let call = arch.name(number).map_or_else(|| format!("#{number}"), str::to_owned);
            let why = seccomp::describe::reason(self.ring, &self.options, &waiting.call).unwrap_or_default().to_owned();
            notice(waiting.tid, What::Refused { call, arch: arch.to_string(), args, errno, why })
        });
        Reply::Errno(errno)
    }

    fn create(&mut self, listener: &Rc<Listener>, waiting: &Waiting, teller: &mut Teller) -> Reply {
        if self.options.notify == Notify::Learn {
            self.observe(listener, waiting, teller);
        }
        let (Some(names), Some(name)) = (&mut self.names, self.options.arch.name(waiting.call.number)) else {
            return Reply::Errno(libc::ENOSYS);
        };
        let request = Request { name, call: waiting.call };
        let mut tell = |what: What| tell(waiting.tid, what, teller);
        names.answer(&request, &Caller::new(waiting, listener), &mut tell)
    }

    /// Tells what the call is about. It goes on whatever is seen here, and may see something else by then.
    fn observe(&self, listener: &Listener, waiting: &Waiting, teller: &mut Teller) {
        let name = self.options.arch.name(waiting.call.number).unwrap_or_default();
        if let Some(what) = seen::what(name, waiting.tid, &waiting.call.args)
            && listener.is_waiting(waiting.id)
        {
            tell(waiting.tid, what, teller);
        }
    }
}

fn tell(tid: i32, what: What, teller: &mut Teller) {
    teller.notice(Key::Told(what.clone()), Instant::now(), || notice(tid, what));
}

fn notice(tid: i32, what: What) -> Notice {
    let (pid, comm) = who(tid);
    Notice { pid, comm, what, count: 1 }
}

/// The process of a thread, and its name.
fn who(tid: i32) -> (i32, String) {
    let comm = std::fs::read(format!("/proc/{tid}/comm")).unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")).and_then(|pid| pid.trim().parse().ok());
    (process.unwrap_or(tid), escaped(comm.trim_ascii_end(), COMM_BYTES_MAX))
}
