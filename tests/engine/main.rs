//! The engine from outside: scenarios (stimuli in, all instructions out, as text) and properties.

mod language;
mod scenarios;
mod show;
