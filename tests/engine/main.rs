//! The engine from outside: scenarios (stimuli in, all instructions out, as text) and properties.

mod draw;
mod language;
mod large;
mod properties;
mod scenarios;
mod show;
mod simulated_worker;
mod world;
