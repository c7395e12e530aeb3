//! Results: the file of a run, tables and pages made of it, comparisons of several.

pub mod results;
