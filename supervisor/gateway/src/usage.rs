//! What a model call used, read from answers of the providers, plain and streamed.
