"""What all endpoints share: the engine, the model's names and limits, and the way from fields to running requests.

text or chat -> token ids -> SamplingParams -> Run: outputs of all samples as they come, with their times measured
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from amdnfs_runtime.async_engine import AsyncEngine
from amdnfs_runtime.chat_template import TemplateSource
from amdnfs_runtime.errors import AmdnfsError, UsageError
from amdnfs_runtime.prompts import encode, encode_text, most_token_chars
from amdnfs_runtime.request import GenerationResult, SamplingParams
from amdnfs_runtime.server.config import ServerConfig
from amdnfs_runtime.server.errors import ApiError, api_error, bad_request, unavailable
from amdnfs_runtime.server.exchange import Exchange
from amdnfs_runtime.server.fields import SamplingFields
from amdnfs_runtime.server.metrics import Metrics
from amdnfs_runtime.server.runs import CANCELLED, ERROR, Run, usage
from amdnfs_runtime.server.templates import TemplateRenderer
from amdnfs_runtime.server.texts import TokenTexts
from amdnfs_runtime.server.tracing import make_tracing

MOST_SAMPLES_A_REQUEST = 512
"""Most prompts times `n` of one HTTP request."""

_MODEL_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_SEEDS = 2**64
_SMALL_PROMPT = 2**12  # in characters or tokens: 1 ms


class Service:
    """One model behind HTTP."""

    def __init__(
        self,
        engine: AsyncEngine,
        config: ServerConfig,
        *,
        template: TemplateSource | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts nothing.

        Args:
            engine: Runs requests; has a tokenizer.
            config: Names and limits.
            template: The model's chat template, if it has one.
            defaults: Sampling fields that requests need not give.
        """
        tokenizer = engine.engine.tokenizer
        assert tokenizer is not None
        self.engine = engine
        self.config = config
        self.manifest = engine.engine.manifest
        self.tokenizer: Tokenizer = tokenizer
        self.texts = TokenTexts(tokenizer)
        self._most_token_chars = most_token_chars(tokenizer)
        self.metrics = Metrics(engine)
        self.tracing = make_tracing(config.otlp_endpoint)
        self.renderer = None if template is None else TemplateRenderer(template, config.template_timeout_s)
        self.model_names = config.model_names or (self.manifest.model.name,)
        self.created_s = int(time.time())
        self.is_draining = False
        self.num_active = 0
        self._defaults = {"temperature": 1.0, **(defaults or {})}

    @property
    def fingerprint(self) -> str:
        """Tells which bundle and target answered, in OpenAI's field `system_fingerprint`."""
        return f"fp_{self.manifest.model.digest[:12]}_{self.engine.engine.target_name}"

    @property
    def template_text(self) -> str:
        """All chat templates as text; empty if there is none."""
        return "" if self.renderer is None else "\n".join(self.renderer.source.templates.values())

    async def start(self) -> None:
        """Starts what renders chat templates; the engine is its owner's.

        Raises:
            ArtifactError: If the chat template is no jinja.
        """
        if self.renderer is not None:
            await self.renderer.start()

    async def close(self) -> None:
        """Ends what `start` began, and sends the last spans."""
        await asyncio.to_thread(self.tracing.close)
        if self.renderer is not None:
            await self.renderer.close()

    def check_model(self, name: str | None) -> str:
        """The model's name for an answer.

        Raises:
            ApiError: 404, if there is no such model.
        """
        if name is None:
            return self.model_names[0]
        if name not in self.model_names:
            known = ", ".join(repr(item) for item in self.model_names)
            raise ApiError(
                404, f"there is no model {name!r:.80}; known: {known}", param="model", code="model_not_found"
            )
        return name

    async def text_ids(self, text: str, *, add_special_tokens: bool = True, param: str = "prompt") -> list[int]:
        """Token ids of a text.

        Args:
            text: The text.
            add_special_tokens: Whether to add the begin token; the text of a chat has it already.
            param: The field that an error is about.

        Raises:
            ApiError: 400, if it is no Unicode, has no token where one is needed, or is far too long.
        """

        def work() -> list[int]:
            if add_special_tokens:
                return encode(self.tokenizer, self.manifest, text)
            return encode_text(self.tokenizer, text, add_special_tokens=False)

        self._check_length(text, param)
        try:
            return work() if len(text) < _SMALL_PROMPT else await asyncio.to_thread(work)
        except AmdnfsError as error:
            raise bad_request(str(error), param) from error
        except TypeError as error:  # what the library makes of lone surrogates
            raise bad_request(f"{param}: the text is no valid Unicode", param) from error

    def _check_length(self, text: str, param: str) -> None:
        """Refuses what surely does not fit, as tokens take far more memory than their text."""
        context, most = self.manifest.model.context_tokens, self._most_token_chars
        if most is not None and len(text) > context * most:
            raise bad_request(
                f"{param}: {len(text)} characters are at least {-(-len(text) // most)} tokens, but the context is "
                f"{context} tokens; send a shorter text",
                param,
                "context_length_exceeded",
            )

    def check_token_ids(self, token_ids: Sequence[int], param: str) -> None:
        """Checks that the model has all tokens.

        Raises:
            ApiError: 400, if not.
        """
        vocab = self.manifest.model.vocab_size
        if bad := [token for token in token_ids if token >= vocab]:
            raise bad_request(f"{param}: token ids are from 0 to {vocab - 1}, not {bad[0]}", param, "invalid_value")

    async def chat_text(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt of a chat, by the model's template.

        Raises:
            ApiError: 400, if the model has no template, or the template refuses the messages.
        """
        if self.renderer is None:
            raise bad_request(
                "the model has no chat template; use /v1/completions, or start the server with --chat-template FILE",
                "messages",
                "no_chat_template",
            )
        try:
            return await self.renderer.render(
                messages, tools=tools, add_generation_prompt=add_generation_prompt, variables=variables
            )
        except UsageError as error:
            raise bad_request(str(error), "messages") from error
        except AmdnfsError as error:  # its process does not start any more
            raise unavailable(str(error)) from error

    def sampling(self, fields: SamplingFields, **others: Any) -> dict[str, Any]:
        """The options of `SamplingParams` that a request gives, with the model's defaults.

        Args:
            fields: The request.
            **others: More options; None is as good as absent.

        Raises:
            ApiError: 400, for a bias whose key is no token id, or options of a stream that is none.
        """
        if fields.stream_options is not None and not fields.stream:
            raise bad_request("stream_options needs stream: true", "stream_options")
        options: dict[str, Any] = dict(self._defaults)
        names = (*_MODEL_DEFAULTS, "presence_penalty", "frequency_penalty", "n", "min_tokens", "ignore_eos")
        options.update({name: getattr(fields, name) for name in names if getattr(fields, name) is not None})
        options["top_k"] = max(0, options.get("top_k", 0))
        if fields.seed is not None:
            options["seed"] = fields.seed % _SEEDS
        if fields.stop is not None:
            options["stop"] = (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop)
        if fields.stop_token_ids is not None:
            options["stop_token_ids"] = tuple(fields.stop_token_ids)
        if fields.logit_bias is not None:
            options["logit_bias"] = _bias(fields.logit_bias)
        options.update({name: value for name, value in others.items() if value is not None})
        return options

    def note_text(self, exchange: Exchange, *texts: str) -> None:
        """Notes prompts for the log, if it may have them."""
        if self.config.log_prompts:
            exchange.notes["prompts"] = list(texts)

    def note_results(self, exchange: Exchange, results: Sequence[Sequence[GenerationResult]]) -> None:
        """Notes for the log what an answer took (times are of its first sample), and its texts if it may have them."""
        numbers = usage(results)
        exchange.notes.update({name: numbers[name] for name in ("prompt_tokens", "completion_tokens")})
        timings = results[0][0].timings
        exchange.notes.update({name: round(getattr(timings, name), 4) for name in ("queue_s", "prefill_s", "decode_s")})
        if self.config.log_prompts:
            exchange.notes["answers"] = [result.text for samples in results for result in samples]

    async def run(
        self, prompts: Sequence[Sequence[int]], options: Mapping[str, Any], names: Mapping[str, str] | None = None
    ) -> Run:
        """Checks and submits all prompts of a request; nothing is submitted if one is refused.

        Args:
            prompts: Token ids.
            options: Fields of `SamplingParams`. Without `max_tokens` an answer may be as long as fits.
            names: What the request calls an option or the prompt, where it has another name.

        Raises:
            ApiError: 400, if a prompt or an option makes no sense; 503, if the engine takes no requests.
        """
        if len(prompts) * options.get("n", 1) > MOST_SAMPLES_A_REQUEST:
            raise bad_request(f"prompts times n must be at most {MOST_SAMPLES_A_REQUEST}", "n")
        if not all(prompts):
            name = (names or {}).get("prompt", "prompt")
            raise bad_request(f"{name}: the prompt is empty; give at least one character", name, "invalid_value")
        run = Run(self.metrics, options.get("n", 1))
        try:
            requests = []
            for ids in prompts:
                params = SamplingParams(**self._fitting(len(ids), options))
                if params.structure is None and len(ids) < _SMALL_PROMPT:
                    requests.append(self.engine.engine.prepare(ids, params))
                else:  # in a thread, of which there are few
                    requests.append(await self.engine.prepare(ids, params))
            for request in requests:
                run.streams.append(self.engine.submit(request))
            await run.begin()
        except AmdnfsError as error:
            run.end(ERROR)
            raise api_error(
                error, {**dict.fromkeys((*SamplingFields.model_fields, "prompt")), **(names or {})}
            ) from error
        except BaseException:
            run.end(CANCELLED)
            raise
        return run

    def _fitting(self, num_prompt: int, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a request with a prompt of so many tokens; without `max_tokens`, as many as fit.

        Raises:
            ApiError: 400, if `min_tokens` do not fit behind the prompt, though the prompt does.
        """
        context, pool = self.manifest.model.context_tokens, self.engine.engine.pool
        room = min(context, (pool.num_pages - 1) * pool.page_tokens + 1) - num_prompt
        if room < 1:  # the engine says so, with numbers
            return {**options, "max_tokens": 1, "min_tokens": 0}
        if (least := options.get("min_tokens", 0)) > room:
            raise bad_request(
                f"min_tokens: at most {room} tokens can follow the prompt, which has {num_prompt}, not {least}",
                "min_tokens",
                "invalid_value",
            )
        return {"max_tokens": room, **options}

    def check_accepts(self) -> None:
        """Checks whether one more request may begin.

        Raises:
            ApiError: 503, if the server stops or has enough to do.
        """
        if self.is_draining:
            raise unavailable("the server is stopping; send the request again", "stopping")
        if self.num_active >= self.config.max_concurrent_requests:
            raise unavailable(
                f"the server has {self.num_active} requests, as many as it takes at once; try again", "overloaded"
            )


def read_defaults(bundle: Path) -> dict[str, Any]:
    """The sampling options that a model recommends in `generation_config.json`; none if it has no such file.

    Raises:
        UsageError: If one of them makes no sense.
    """
    path = bundle / "tokenizer" / "generation_config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = {
        name: values[name] for name in _MODEL_DEFAULTS if isinstance(values, dict) and values.get(name) is not None
    }
    SamplingParams(**found)
    return found


def _bias(given: Mapping[str, float]) -> dict[int, float]:
    bias = {}
    for key, value in given.items():
        if not (key.isascii() and key.isdigit() and len(key) <= len(str(2**31))):
            raise bad_request(f"logit_bias: the keys are token ids, not {key!r:.80}", "logit_bias", "invalid_value")
        bias[int(key)] = value
    return bias
