//! Data, models, losses, training, evaluation: the desktop side.
