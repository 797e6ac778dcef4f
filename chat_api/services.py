"""What is beside the relay, as the settings want it: who counts, who keeps answers, who writes conversations down."""

import logging
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack

from chat_api.callers import ClientKey
from chat_api.conversation_log import ConversationLog
from chat_api.conversing import Conversations
from chat_api.errors import StoreDown
from chat_api.keeping import Keeping
from chat_api.ledger import FILE_SECONDS, REDIS_SECONDS, Ledger
from chat_api.metering import Meter
from chat_api.plans import Limits, Planner, spent
from chat_api.settings import Settings
from chat_api.sharing import Sharing
from chat_api.stores import connected_store, open_cache
from chat_api.stores.memory import MemoryStore
from chat_api.stores.usage_file import UsageFile

log = logging.getLogger(__name__)


async def counting(settings: Settings, stack: AsyncExitStack) -> tuple[Ledger | None, Meter | None]:
    """Who counts what calls take, if anybody is to; open as long as the stack."""
    limits = Limits(
        requests=settings.global_rate_limit,
        of_route=settings.req_rate_limit,
        tokens=settings.caller_token_limit,
        of_model=settings.model_token_limit,
        max_parallel=settings.caller_max_parallel or 0,
        strategy=settings.rate_limit_strategy,
    )
    if limits == Limits(strategy=limits.strategy) and not settings.counts_usage:
        return None, None
    store, kept = await connected_store(
        settings.store_url, timeout_seconds=settings.store_timeout, failure=settings.store_failure
    )
    stack.push_async_callback(store.aclose)
    ledger = None
    if settings.counts_usage:
        kept = kept or (UsageFile(settings.usage_file) if settings.usage_file else None)
        ledger = Ledger(kept, seconds=REDIS_SECONDS if settings.store_url else FILE_SECONDS)
        ledger.start()
        stack.push_async_callback(ledger.aclose)
        if isinstance(store, MemoryStore):
            await _go_on(store, ledger, settings.client_keys)
    return ledger, Meter(Planner(limits), store, ledger, settings.config.prices)


async def keeping(settings: Settings, stack: AsyncExitStack) -> Keeping | None:
    """Who keeps answers and has calls share them, if anything is kept or shared; open as long as the stack."""
    if not settings.cached_routes and not settings.coalesce:
        return None
    store = sharing = None
    if settings.cached_routes:
        store = await open_cache(
            settings.cache_backend,
            settings.cache_url,
            settings.cache_max_bytes,
            timeout_seconds=settings.store_timeout,
        )
        stack.push_async_callback(store.aclose)
    if settings.coalesce:
        sharing = Sharing()
        stack.push_async_callback(sharing.aclose)
    return Keeping(settings.cached_routes, store, sharing, is_shared=settings.cache_shared)


def conversing(settings: Settings, stack: AsyncExitStack) -> Conversations | None:
    """Who has conversations written down, if any are; open as long as the stack."""
    if not settings.logs_conversations:
        return None
    written = ConversationLog(
        settings.log_dir,
        max_file_bytes=settings.log_max_file_bytes,
        keep_days=settings.log_keep_days,
        redact=settings.config.redact,
    )
    written.start()
    stack.push_async_callback(written.aclose)
    return Conversations(written, settings.log_chat)


async def _go_on(store: MemoryStore, ledger: Ledger, keys: Iterable[ClientKey]) -> None:
    """Budgets go on where they were before this process began, as far as the usage file knows."""
    keys = [key for key in keys if key.budget is not None]
    try:
        costs = await ledger.month_costs() if keys else {}
    except StoreDown as error:
        log.error("budgets begin anew: %s", error.message)
        return
    for key in keys:
        if cost := costs.get(key.name):
            claims = (spent(key, cost, time.time()),)
            store.settle(claims, store.admit(claims), (0,))
