//! Every engine does what every engine must do.

mod redis {
    shared::conformance_tests!(harness::bench::Redis::with_shards(1));
}

mod redis_in_shards {
    shared::conformance_tests!(harness::bench::Redis::with_shards(4));
}

mod embedded {
    shared::conformance_tests!(harness::bench::Embedded::create());
}
