//! What a reader says about the cache: the rule is the store's, which obeys it too.

pub use forebay_store::rule::directive::Directive;
