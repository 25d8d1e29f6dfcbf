"""How the imaging code says that it will not or cannot look: a code of ours with its words in both languages (stage 4).

The words are those of `terminology.analysis_reasons`; a detail never holds a value of the images' header or a name.
"""

from __future__ import annotations

from ai_services.prediction import PipelineError
from terminology.analysis_reasons import ANALYSIS_REASONS


def refusal(code: str, detail_en: str = "", detail_zh: str = "", *, retryable: bool = False) -> PipelineError:
    """A `PipelineError` in the words of the reason, with what was counted or measured behind them.

    Parameters
    ----------
    code : key of `ANALYSIS_REASONS`
    detail_en, detail_zh : numbers that explain, for people; appended after a colon
    retryable : True where trying again later may help
    """
    reason = ANALYSIS_REASONS[code]
    text_en = f"{reason.display}: {detail_en}" if detail_en else reason.display
    text_zh = f"{reason.display_zh}: {detail_zh}" if detail_zh else reason.display_zh
    return PipelineError(code, text_en, text_zh, retryable=retryable)
