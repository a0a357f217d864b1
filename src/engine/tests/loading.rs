//! Models come and go: names, files that are refused, unloading and stopping at any moment.

use super::*;

#[test]
fn unloading_answers_running_requests_and_forgets_the_name() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("chat")).unwrap();
    let running = generate(&served, vec![1, 2, 3], greedy(max_tokens(20)));
    let (done, unloaded) = channel();
    engine.unload("chat", Requests::Finish, Box::new(move |result| done.send(result).unwrap()));
    assert_eq!(engine.find("chat").unwrap_err().code(), "NOMODEL");
    answer(&running);
    // Who has found the model before may still have a request answered, until it takes none.
    let mut late = std::iter::repeat_with(|| generate(&served, vec![1], max_tokens(1)).recv_timeout(PATIENCE).unwrap());
    assert_eq!(late.find_map(Result::err).unwrap().code(), "CANCELLED");
    assert!(unloaded.try_recv().is_err(), "it is not free as long as somebody holds it");
    drop(served);
    unloaded.recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn a_forced_unload_cancels_what_waits_and_runs() {
    let engine = Engine::new(ENGINE);
    for name in ["chat", "embed"] {
        let served = load(&engine, LoadOptions { workers: Some(1), ..options(name) }).unwrap();
        let text = "text ".repeat(80);
        let (generating, embedding): (Vec<_>, Vec<_>) = match name {
            "chat" => ((0..80).map(|_| generate(&served, vec![1; 200], max_tokens(200))).collect(), vec![]),
            _ => (vec![], (0..80).map(|_| embed(&served, &[text.as_str(); 100])).collect()),
        };
        let (done, unloaded) = channel();
        engine.unload(name, Requests::Cancel, Box::new(move |result| done.send(result).unwrap()));
        let generated = generating.iter().map(|answers| answers.recv_timeout(PATIENCE).unwrap().map(drop));
        let outcomes: Vec<_> = generated
            .chain(embedding.iter().map(|answers| answers.recv_timeout(PATIENCE).unwrap().map(drop)))
            .collect();
        // The first ones may have been finished.
        let cancelled = EngineError::Cancelled("the model was unloaded").to_string();
        assert_eq!(outcomes[79].as_ref().unwrap_err().to_string(), cancelled);
        for error in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(error.to_string(), cancelled);
        }
        drop(served);
        unloaded.recv_timeout(PATIENCE).unwrap().unwrap();
    }
}

#[test]
fn llama_cpp_ends_a_load_that_was_cancelled() {
    let mut catalogue = Catalogue::default();
    let (load, _underway) = Load::new(options("chat"), 0, Stop::default());
    catalogue.reserve(&load).unwrap();
    let file = source::check(&load.options, None).unwrap();
    catalogue.take_load("chat").unwrap().cancel();
    let error = Model::load(file, &load).unwrap_err();
    assert_eq!(error, EngineError::Cancelled("the model was unloaded"));
    assert_eq!(load.percent(), 0);
}

#[test]
fn a_cancelled_load_does_not_take_the_name_from_the_one_after_it() {
    let mut catalogue = Catalogue::default();
    let [(first, _first), (second, _second)] = [0, 1].map(|_| Load::new(options("chat"), 0, Stop::default()));
    catalogue.reserve(&first).unwrap();
    let taken = catalogue.take_load("chat").unwrap();
    taken.cancel();
    taken.wait();
    catalogue.reserve(&second).unwrap();
    catalogue.forget(&first);
    catalogue.fail(&first, &EngineError::EmptyPrompt);
    let listed = catalogue.list();
    assert!(matches!(&listed[..], [(_, Listing::Loading(load))] if Arc::ptr_eq(load, &second)), "{listed:?}");
    assert_eq!(first.begin().unwrap_err().code(), "CANCELLED");
    assert!(second.begin().is_ok());
}

#[test]
fn a_name_in_use_is_refused() {
    let engine = Engine::new(ENGINE);
    load(&engine, options("chat")).unwrap();
    assert!(matches!(load(&engine, options("chat")), Err(EngineError::NameTaken(_))));
}

#[test]
fn a_refused_file_leaves_its_name_free() {
    let engine = Engine::new(ENGINE);
    let broken = LoadOptions { path: "/no/such/file.gguf".to_owned(), ..options("chat") };
    assert_eq!(load(&engine, broken).unwrap_err().code(), "LOADFAIL");
    assert!(load(&engine, options("chat")).is_ok());
}

#[test]
fn an_encoder_cannot_be_loaded_for_generation() {
    let engine = Engine::new(ENGINE);
    let args: [&[u8]; 4] = [b"m", options("embed").path.into_bytes().leak(), b"TYPE", b"GENERATE"];
    let error = load(&engine, LoadOptions::parse(&args).unwrap()).unwrap_err();
    assert_eq!(error.code(), "LOADFAIL");
}

#[test]
fn a_reranker_cannot_be_loaded_for_embedding() {
    let engine = Engine::new(ENGINE);
    let error = load(&engine, LoadOptions { kind: ModelKind::Embed, ..options("rank") }).unwrap_err();
    assert_eq!(error.code(), "LOADFAIL");
    assert!(error.to_string().contains("a reranker makes a score"), "{error}");
}

#[test]
fn stopping_the_engine_ends_a_running_request_at_once() {
    let engine = Engine::new(ENGINE);
    let served = load(&engine, options("chat")).unwrap();
    let running = generate(&served, vec![1; 200], max_tokens(200));
    assert!(engine.stop(Instant::now() + PATIENCE));
    // Finished just before, or cancelled; never left waiting.
    if let Err(error) = running.recv_timeout(PATIENCE).unwrap() {
        assert_eq!(error.code(), "CANCELLED");
    }
}
