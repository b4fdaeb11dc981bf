"""What a run says while it goes on: events, bars or JSON lines, rates."""
