"""Paired training: rollout, advantages and losses as pure functions, behind thin subclasses of TRL's trainers."""
