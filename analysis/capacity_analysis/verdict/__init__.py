"""Arms that answered the same items, against each other: paired differences and what they allow to say."""
