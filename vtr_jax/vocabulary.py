"""CLIP's vocabulary, as the tokeniser writes and the text tower reads it. Source: openai/CLIP."""

from __future__ import annotations

SOT_ID = 49406  # start of text
EOT_ID = 49407  # end of text
TOKENISER_VOCABULARY = 49408
