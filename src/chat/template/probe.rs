//! What a template can do, found by looking at it or by trying it.
