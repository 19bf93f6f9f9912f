# Benchmarks: what is missing of a suite is measured, one claim after the other; what is there is kept.
# Timings need idle cores. JOBS: single-threaded training runs side by side, where no timing is taken.
JOBS ?= 2
PYTHON_BENCH ?= $(BIN)/python
SPINE := import_time memory env_vs_envpool env_vs_sb3 env_vs_raw ppo_vs_sb3_speed demo ppo_vs_sb3_time_to_3000

OFFPOLICY_SPEED := sac_vs_sb3_speed rlpd_critic_speed
OFFPOLICY := sac_reference sac_bf16 sample_efficient rlpd_sparse rlpd_ablation ailboost_one_demo ailboost_demos sac_pixels ailboost_pixels
ONPOLICY_SPEED := props_cost
ONPOLICY := twostep gridworld_sampling_error fixed_policy_sampling_error returns comblock comblock_images
WORLD_MODELS_SPEED := update_speed
WORLD_MODELS := dreamer_state dreamer_pixels open_loop pets_mbpo
MANIPULATION_SPEED := flow_latency wam_latency
MANIPULATION := vla_flow_bc vla_discrete_bc wam_gain vs_lerobot_policies
TABLETOP := experts speed loader_vs_lerobot record

.PHONY: bench-spine bench-spine-smoke bench-offpolicy bench-offpolicy-smoke bench-onpolicy bench-onpolicy-smoke \
	bench-tabletop bench-tabletop-smoke bench-manipulation bench-manipulation-smoke bench-world_models bench-world_models-smoke bench-report

bench-spine: ## measure what is missing of the suite `spine`, then write docs/benchmarks.md
	for claim in $(SPINE); do $(PYTHON_BENCH) -m benchmarks.spine.$$claim || exit 1; done
	$(PYTHON_BENCH) -m benchmarks.spine.ppo_return_1m --jobs $(JOBS)
	$(PYTHON_BENCH) -m benchmarks.report

bench-spine-smoke: ## run every claim of the suite `spine` with tiny sizes; publishes nothing
	for claim in $(filter-out demo,$(SPINE)) ppo_return_1m; do \
		$(PYTHON_BENCH) -m benchmarks.spine.$$claim --smoke || exit 1; done

bench-offpolicy: ## measure what is missing of the suite `offpolicy`, then write docs/benchmarks.md
	for claim in $(OFFPOLICY_SPEED); do $(PYTHON_BENCH) -m benchmarks.offpolicy.$$claim || exit 1; done
	for claim in $(OFFPOLICY); do $(PYTHON_BENCH) -m benchmarks.offpolicy.$$claim --jobs $(JOBS) || exit 1; done
	$(PYTHON_BENCH) -m benchmarks.report

bench-offpolicy-smoke: ## run every claim of the suite `offpolicy` with tiny sizes; publishes nothing
	for claim in $(OFFPOLICY_SPEED) $(OFFPOLICY); do $(PYTHON_BENCH) -m benchmarks.offpolicy.$$claim --smoke || exit 1; done

bench-onpolicy: ## measure what is missing of the suite `onpolicy`, then write docs/benchmarks.md
	for claim in $(ONPOLICY_SPEED); do $(PYTHON_BENCH) -m benchmarks.onpolicy.$$claim || exit 1; done
	for claim in $(ONPOLICY); do $(PYTHON_BENCH) -m benchmarks.onpolicy.$$claim --jobs $(JOBS) || exit 1; done
	$(PYTHON_BENCH) -m benchmarks.report

bench-onpolicy-smoke: ## run every claim of the suite `onpolicy` with tiny sizes; publishes nothing
	for claim in $(ONPOLICY_SPEED) $(ONPOLICY); do $(PYTHON_BENCH) -m benchmarks.onpolicy.$$claim --smoke || exit 1; done

bench-tabletop: ## measure what is missing of the suite `tabletop`, then write docs/benchmarks.md
	for claim in $(TABLETOP); do $(PYTHON_BENCH) -m benchmarks.tabletop.$$claim || exit 1; done
	$(PYTHON_BENCH) -m benchmarks.report

bench-tabletop-smoke: ## run every claim of the suite `tabletop` with tiny sizes; publishes nothing
	for claim in $(TABLETOP); do $(PYTHON_BENCH) -m benchmarks.tabletop.$$claim --smoke || exit 1; done

bench-manipulation: ## measure what is missing of the suite `manipulation` (core claims), then write docs/benchmarks.md
	for claim in $(MANIPULATION_SPEED) $(MANIPULATION); do $(PYTHON_BENCH) -m benchmarks.manipulation.$$claim || exit 1; done
	$(PYTHON_BENCH) -m benchmarks.report

bench-manipulation-smoke: ## run every claim of the suite `manipulation` with tiny sizes; publishes nothing
	for claim in $(MANIPULATION_SPEED) $(MANIPULATION) wam_gain_all; do \
		$(PYTHON_BENCH) -m benchmarks.manipulation.$$claim --smoke || exit 1; done

bench-world_models: ## measure what is missing of the suite `world_models`, then write docs/benchmarks.md
	for claim in $(WORLD_MODELS_SPEED); do $(PYTHON_BENCH) -m benchmarks.world_models.$$claim || exit 1; done
	for claim in $(WORLD_MODELS); do $(PYTHON_BENCH) -m benchmarks.world_models.$$claim --jobs $(JOBS) || exit 1; done
	$(PYTHON_BENCH) -m benchmarks.report

bench-world_models-smoke: ## run every claim of the suite `world_models` with tiny sizes; publishes nothing
	for claim in $(WORLD_MODELS_SPEED) $(WORLD_MODELS); do $(PYTHON_BENCH) -m benchmarks.world_models.$$claim --smoke || exit 1; done

bench-report: ## write docs/benchmarks.md and its plots from the result files
	$(PYTHON_BENCH) -m benchmarks.report
