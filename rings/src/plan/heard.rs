//! Whether somebody listens to a plan's filters, and to what.
//!
//! The filters refuse the same either way. So a plan can be made again with another listener, or with none, and stays the same
//! plan in everything that it promises; only names that don't exist yet need somebody who answers.

use super::{Plan, nested, network};
use crate::builtin;
use crate::host::Host;
use crate::names::Rules;
use crate::ring::Ring;
use crate::seccomp::{self, ExecCookie};
use crate::spec::{ModelAccess, Spec};

/// The rules about names, where somebody can be had who keeps them.
pub(super) fn names<'a>(spec: &'a Spec, host: &Host) -> Option<&'a Rules> {
    super::protections::names(spec, host).filter(|_| host.seccomp.is_yes() && host.notify.is_yes())
}

/// What a ring's filters are made from on this host.
pub(super) fn filter_options(
    spec: &Spec,
    names: Option<&Rules>,
    host: &Host,
    cookie: ExecCookie,
) -> Option<seccomp::Options> {
    let mut options = seccomp::Options::new(spec.ring, cookie).ok()?;
    options.nested = nested::given(spec, host);
    options.exec_fd = builtin::EXEC_FD;
    if spec.ring == Ring::R0 {
        return Some(options);
    }
    if !host.namespaces.is_yes() {
        // No network namespace: not one socket but AF_UNIX pairs, stricter than the ring and never looser.
        options.sockets = seccomp::Sockets::UnixPairs;
    }
    if network::models(spec, host) == ModelAccess::Granted {
        options.sockets = seccomp::Sockets::Calls;
    }
    if host.notify.is_yes() {
        options.notify = seccomp::Notify::Refusals;
    }
    if names.is_some() {
        options.names = seccomp::Names::Asked;
    }
    Some(options)
}

impl Plan {
    /// What its filters were made from, if one of them needs somebody who listens.
    #[must_use]
    pub fn listens(&self) -> Option<&seccomp::Options> {
        self.filter_options.as_ref().filter(|options| self.filters.is_some() && options.need_listener())
    }

    /// The same agent, for a run to learn from: what it opens, executes and connects to is told as well. Refuses no more and no
    /// less. `None` where nobody can listen on this host, and for R0, which has nothing to learn.
    #[must_use]
    pub fn learning(self) -> Option<Plan> {
        self.listens()?;
        self.heard(|options| options.notify = seccomp::Notify::Learn)
    }

    /// The same agent with nobody who listens: refused calls answer by themselves, and names are for the mounts alone to keep.
    #[must_use]
    pub fn unheard(self) -> Plan {
        let unheard = |options: &mut seccomp::Options| {
            (options.notify, options.names) = (seccomp::Notify::Off, seccomp::Names::Free);
        };
        let mut plan = self.clone().heard(unheard).unwrap_or(self);
        plan.names = None;
        plan
    }

    /// The same agent, whose names the kernel makes.
    pub(crate) fn let_names_be(&mut self) {
        self.names = None;
        if let Some(plan) = self.clone().heard(|options| options.names = seccomp::Names::Free) {
            *self = plan;
        }
    }

    fn heard(mut self, change: impl FnOnce(&mut seccomp::Options)) -> Option<Plan> {
        self.filters.as_ref()?;
        let mut options = self.filter_options?;
        change(&mut options);
        self.filters = Some(seccomp::Filters::for_ring(self.ring, &options).ok()?);
        (self.filter_options, self.notify) = (Some(options), options.notify);
        Some(self)
    }
}
