//! Limits and single cases of either half.
