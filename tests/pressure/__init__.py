"""What a bridge is pressed with: floods, storms, queues, and clients that do not play along."""
