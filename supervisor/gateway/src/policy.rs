//! Who may be reached: rules of agent.yaml under the operator's ceiling, decided under exactly one generation.
