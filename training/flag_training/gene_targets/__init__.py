"""Gene vectors that training aligns gene tokens to: from foundation models, or learnt from counts."""
