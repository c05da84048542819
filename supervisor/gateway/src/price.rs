//! What tokens cost, from a table; an unknown model is flagged, never free.
