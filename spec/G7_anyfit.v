(** * G7 utilisation of any-fit

    A placer is any-fit if it opens an unused node only for a container that no used node takes. Each theorem about it follows
    from one fact about pairs: two used nodes together hold more than one of them could. Sums over all pairs then give
    the mean. The nodes of the theorems are a class: nodes of which every container that may be on one may be on all.

    References: Johnson 1974; Garey, Graham, Johnson, Yao 1976; Kou, Markowsky 1977; Coffman, Garey, Johnson 1983. *)

From Coq Require Import List Arith Bool ZArith QArith Lia Lqa.
From Heptad Require Import Sums.
Import ListNotations.
Open Scope nat_scope.

Definition node := nat.
Definition resource := nat.
Definition vector := resource -> nat.

(** What a container asks, and which nodes its service permits. *)
Record item := { need : vector; permits : node -> Prop }.

Record state := { load : node -> vector; used : node -> bool }.

Definition empty : state := {| load := fun _ _ => 0; used := fun _ => false |}.

Definition put (s : state) (x : item) (j : node) : state :=
  {| load := fun i => if i =? j then fun k => load s j k + need x k else load s i;
     used := fun i => if i =? j then true else used s i |}.

Lemma put_load_same : forall s x j k, load (put s x j) j k = load s j k + need x k.
Proof. intros. cbn. rewrite Nat.eqb_refl. reflexivity. Qed.

Lemma put_load_other : forall s x i j k, i <> j -> load (put s x j) i k = load s i k.
Proof. intros. cbn. apply Nat.eqb_neq in H. rewrite H. reflexivity. Qed.

Lemma put_used_same : forall s x j, used (put s x j) j = true.
Proof. intros. cbn. rewrite Nat.eqb_refl. reflexivity. Qed.

Lemma put_used_other : forall s x i j, i <> j -> used (put s x j) i = used s i.
Proof. intros. cbn. apply Nat.eqb_neq in H. rewrite H. reflexivity. Qed.

(** A bounded search decides which resource does not suffice; no axiom is needed for it. *)
Lemma not_all_below :
  forall d (a b : nat -> nat), ~ (forall k, k < d -> a k <= b k) -> exists k, k < d /\ b k < a k.
Proof.
  induction d as [| d IH]; intros a b H; [exfalso; apply H; intros; lia |].
  destruct (le_lt_dec (a d) (b d)) as [Hd | Hd]; [| exists d; lia].
  destruct (IH a b) as (k & Hk & Hlt); [| exists k; lia].
  intros Hall. apply H. intros k Hk. destruct (Nat.eq_dec k d) as [-> | Hne]; [assumption | apply Hall; lia].
Qed.

Section AnyFit.
(** The number of resources, and what nodes have. *)
Variable d : nat.
Variable capacity : node -> vector.

Definition fits (s : state) (x : item) (j : node) : Prop :=
  forall k, k < d -> load s j k + need x k <= capacity j k.

(** ** The step relation *)

Definition takes (s : state) (x : item) (j : node) : Prop := permits x j /\ fits s x j.

(** The rule of every any-fit placer, best-fit and first-fit among them. *)
Definition any_fit (s : state) (x : item) (j : node) : Prop :=
  takes s x j /\ (used s j = false -> forall i, used s i = true -> ~ takes s x i).

Inductive run (asked : item -> Prop) (opens : state -> node -> Prop) : state -> Prop :=
  | run_empty : run asked opens empty
  | run_put s x j :
      run asked opens s -> asked x -> any_fit s x j -> (used s j = false -> opens s j) -> run asked opens (put s x j).

(** Nodes of which every container that may be on one may be on all. *)
Definition is_class (asked : item -> Prop) (alike : node -> Prop) : Prop :=
  forall x i j, asked x -> alike i -> alike j -> permits x i -> permits x j.

(** A node may be opened whenever the rule says so. *)
Definition anyhow (s : state) (j : node) : Prop := True.

(** Together they hold more of some resource than [bound] says. *)
Definition clash (bound : vector) (s : state) (i j : node) : Prop :=
  exists k, k < d /\ bound k < load s i k + load s j k.

Lemma clash_symmetric : forall b s i j, clash b s i j -> clash b s j i.
Proof. intros b s i j (k & Hk & H). exists k. split; lia. Qed.

Section Class.
(** The containers that are ever asked for. *)
Variable asked : item -> Prop.
(** A class of nodes, and what no two of them may hold together. *)
Variable alike : node -> Prop.
Variable limit : vector.
Hypothesis same_permits : is_class asked alike.
Variable opens : state -> node -> Prop.
Hypothesis limit_below :
  forall s i j, run asked opens s -> opens s j -> alike i -> alike j -> used s i = true ->
  forall k, k < d -> limit k <= capacity i k.

Lemma unused_is_empty : forall s, run asked opens s -> forall j, used s j = false -> forall k, load s j k = 0.
Proof.
  induction 1 as [| s x i Hrun IH Hask Hfit Hopen]; intros j Hj k; [reflexivity |].
  destruct (Nat.eq_dec j i) as [-> | Hne]; [rewrite put_used_same in Hj; discriminate |].
  rewrite put_load_other by assumption. apply IH. rewrite put_used_other in Hj; assumption.
Qed.

Lemma pairs_clash :
  forall s, run asked opens s -> forall i j, alike i -> alike j -> i <> j -> used s i = true -> used s j = true ->
  clash limit s i j.
Proof.
  induction 1 as [| s x o Hrun IH Hask Hfit Hopen]; intros i j Ai Aj Hne Hi Hj; [discriminate |].
  assert (Hkeep : forall a b, alike a -> alike b -> a <> b -> used s a = true -> used s b = true ->
                  clash limit (put s x o) a b).
  { intros a b Aa Ab Hab Ha Hb. destruct (IH a b Aa Ab Hab Ha Hb) as (k & Hk & H). exists k. split; [assumption |].
    destruct (Nat.eq_dec a o) as [-> |]; destruct (Nat.eq_dec b o) as [-> |]; try contradiction;
      rewrite ?put_load_same, ?put_load_other by auto; lia. }
  assert (Hnew : forall a, alike a -> alike o -> a <> o -> used s o = false -> used s a = true ->
                 clash limit (put s x o) a o).
  { intros a Aa Ao Hao Ho Ha. destruct Hfit as [[Hp _] Hany]. specialize (Hany Ho a Ha).
    destruct (not_all_below d (fun k => load s a k + need x k) (capacity a)) as (k & Hk & Hlt).
    - intros Hall. apply Hany. split; [apply (same_permits x o a Hask); assumption | exact Hall].
    - exists k. split; [assumption |]. rewrite put_load_same, put_load_other by assumption.
      pose proof (limit_below s a o Hrun (Hopen Ho) Aa Ao Ha k Hk).
      pose proof (unused_is_empty s Hrun o Ho k). lia. }
  destruct (Nat.eq_dec i o) as [-> | Hio].
  - rewrite put_used_other in Hj by auto. destruct (used s o) eqn:Ho.
    + apply Hkeep; auto.
    + apply clash_symmetric. apply Hnew; auto.
  - rewrite put_used_other in Hi by auto. destruct (Nat.eq_dec j o) as [-> | Hjo].
    + destruct (used s o) eqn:Ho; [apply Hkeep | apply Hnew]; auto.
    + rewrite put_used_other in Hj by auto. apply Hkeep; auto.
Qed.
End Class.

(** ** d resources, equal nodes *)

(** The share of a resource that a node has given. *)
Definition share (s : state) (i : node) (k : resource) : Q :=
  (inject_Z (Z.of_nat (load s i k)) / inject_Z (Z.of_nat (capacity i k)))%Q.

(** All shares of a node. *)
Definition shares (s : state) (i : node) : Q := qsum (share s i) (seq 0 d).

(** The mean over nodes and resources. *)
Definition mean (s : state) (nodes : list node) : Q :=
  (qsum (shares s) nodes / (inject_Z (Z.of_nat (length nodes)) * inject_Z (Z.of_nat d)))%Q.

Lemma share_nonneg : forall s i k, (0 <= share s i k)%Q.
Proof.
  intros s i k. unfold share, Qdiv. apply Qmult_le_0_compat.
  - rewrite <- (Zle_Qle 0). lia.
  - apply Qinv_le_0_compat. rewrite <- (Zle_Qle 0). lia.
Qed.

Lemma inject_nat_pos : forall n, 0 < n -> (0 < inject_Z (Z.of_nat n))%Q.
Proof. intros n H. rewrite <- (Zlt_Qlt 0). lia. Qed.

Lemma clash_shares :
  forall s i j C, (forall k, k < d -> 0 < C k) ->
  (forall k, k < d -> capacity i k = C k) -> (forall k, k < d -> capacity j k = C k) ->
  clash C s i j -> (1 < shares s i + shares s j)%Q.
Proof.
  intros s i j C Hpos Hi Hj (k & Hk & Hlt).
  assert (Hsum : (1 < share s i k + share s j k)%Q).
  { unfold share. rewrite (Hi k Hk), (Hj k Hk). pose proof (inject_nat_pos _ (Hpos k Hk)) as Hc.
    assert (Hq : (inject_Z (Z.of_nat (load s i k)) / inject_Z (Z.of_nat (C k)) +
                  inject_Z (Z.of_nat (load s j k)) / inject_Z (Z.of_nat (C k)) ==
                  inject_Z (Z.of_nat (load s i k + load s j k)) / inject_Z (Z.of_nat (C k)))%Q).
    { rewrite Nat2Z.inj_add, inject_Z_plus. field. lra. }
    rewrite Hq. apply Qlt_shift_div_l; [assumption |]. rewrite Qmult_1_l. rewrite <- Zlt_Qlt. lia. }
  assert (Hin : In k (seq 0 d)) by (apply in_seq; lia).
  pose proof (qsum_member (share s i) _ _ (fun k' _ => share_nonneg s i k') Hin).
  pose proof (qsum_member (share s j) _ _ (fun k' _ => share_nonneg s j k') Hin).
  unfold shares. lra.
Qed.

(** Pairs that clash give the mean, however they came to be. *)
Lemma clashes_mean :
  forall s nodes C, 0 < d -> (forall k, k < d -> 0 < C k) ->
  (forall i, In i nodes -> forall k, k < d -> capacity i k = C k) -> NoDup nodes -> 2 <= length nodes ->
  (forall i j, In i nodes -> In j nodes -> i <> j -> clash C s i j) ->
  (1 / (2 * inject_Z (Z.of_nat d)) < mean s nodes)%Q.
Proof.
  intros s nodes C Hd Hpos Heq Hnd Hlen Hclash.
  assert (H : (0 < qsum (fun i => shares s i - (1 # 2)) nodes)%Q).
  { apply qpairs_positive; [assumption | assumption |]. intros i j Hi Hj Hne.
    pose proof (clash_shares s i j C Hpos (Heq i Hi) (Heq j Hj) (Hclash i j Hi Hj Hne)). lra. }
  rewrite qsum_shift in H. unfold mean.
  pose proof (inject_nat_pos d Hd) as Hdq.
  pose proof (inject_nat_pos (length nodes) ltac:(lia)) as Hm.
  apply Qlt_shift_div_l; [apply Qmult_lt_0_compat; assumption |].
  setoid_replace (1 / (2 * inject_Z (Z.of_nat d)) * (inject_Z (Z.of_nat (length nodes)) * inject_Z (Z.of_nat d)))%Q
    with (inject_Z (Z.of_nat (length nodes)) * (1 # 2))%Q by (field; lra).
  unfold node in *. lra.
Qed.

(** G7 with d resources: equal nodes, any-fit, no departures, at least two used nodes: the mean over nodes and resources
    is more than 1/(2d). *)
Theorem any_fit_d_resources :
  forall asked (alike : node -> Prop) C s nodes,
  is_class asked alike ->
  0 < d -> (forall k, k < d -> 0 < C k) -> (forall i, alike i -> forall k, k < d -> capacity i k = C k) ->
  run asked anyhow s ->
  NoDup nodes -> 2 <= length nodes -> (forall i, In i nodes -> alike i /\ used s i = true) ->
  (1 / (2 * inject_Z (Z.of_nat d)) < mean s nodes)%Q.
Proof.
  intros asked alike C s nodes Hperm Hd Hpos Heq Hrun Hnd Hlen Hn.
  apply (clashes_mean s nodes C); auto.
  - intros i Hi. apply Heq. apply Hn. assumption.
  - intros i j Hi Hj Hne. destruct (Hn i Hi), (Hn j Hj).
    apply (pairs_clash asked alike C Hperm anyhow); auto.
    intros s' a b _ _ Aa _ _ k Hk. rewrite (Heq a Aa k Hk). lia.
Qed.

(** At most one used node has all its shares together at or below one half. *)
Theorem any_fit_one_half_empty :
  forall asked (alike : node -> Prop) C s i j,
  is_class asked alike ->
  (forall k, k < d -> 0 < C k) -> (forall i, alike i -> forall k, k < d -> capacity i k = C k) ->
  run asked anyhow s -> alike i -> alike j -> used s i = true -> used s j = true ->
  (shares s i <= 1 # 2)%Q -> (shares s j <= 1 # 2)%Q -> i = j.
Proof.
  intros asked alike C s i j Hperm Hpos Heq Hrun Ai Aj Ui Uj Hi Hj.
  destruct (Nat.eq_dec i j) as [| Hne]; [assumption | exfalso].
  assert (Hc : clash C s i j).
  { apply (pairs_clash asked alike C Hperm anyhow); auto.
    intros s' a b _ _ Aa _ _ k Hk. rewrite (Heq a Aa k Hk). lia. }
  pose proof (clash_shares s i j C Hpos (Heq i Ai) (Heq j Aj) Hc). lra.
Qed.

(** ** d resources, unequal nodes *)

(** Each node has at least [least], and at most [r] times as much. *)
Definition within_ratio (least : vector) (r : Q) (i : node) : Prop :=
  forall k, k < d -> least k <= capacity i k /\
    (inject_Z (Z.of_nat (capacity i k)) <= r * inject_Z (Z.of_nat (least k)))%Q.

Lemma clash_shares_ratio :
  forall s i j least r, (forall k, k < d -> 0 < least k) -> (1 <= r)%Q ->
  within_ratio least r i -> within_ratio least r j -> clash least s i j -> (1 / r < shares s i + shares s j)%Q.
Proof.
  intros s i j least r Hpos Hr Hi Hj (k & Hk & Hlt).
  pose proof (inject_nat_pos _ (Hpos k Hk)) as Hc.
  set (c := inject_Z (Z.of_nat (least k))) in *.
  assert (Hrc : (0 < r * c)%Q) by (apply Qmult_lt_0_compat; lra).
  assert (Hone : forall n, within_ratio least r n -> (inject_Z (Z.of_nat (load s n k)) / (r * c) <= share s n k)%Q).
  { intros n Hn. destruct (Hn k Hk) as [Hlow Hhigh]. unfold share.
    pose proof (inject_nat_pos (capacity n k) ltac:(specialize (Hpos k Hk); lia)) as Hcap.
    assert (Hl : (0 <= inject_Z (Z.of_nat (load s n k)))%Q) by (rewrite <- (Zle_Qle 0); lia).
    apply Qle_shift_div_l; [assumption |].
    setoid_replace (inject_Z (Z.of_nat (load s n k)) / (r * c) * inject_Z (Z.of_nat (capacity n k)))%Q
      with (inject_Z (Z.of_nat (load s n k)) * inject_Z (Z.of_nat (capacity n k)) / (r * c))%Q by (field; lra).
    apply Qle_shift_div_r; [assumption |].
    rewrite (Qmult_comm (inject_Z (Z.of_nat (load s n k)))), (Qmult_comm (inject_Z (Z.of_nat (load s n k)))).
    apply Qmult_le_compat_r; assumption. }
  assert (Hsum : (1 / r < share s i k + share s j k)%Q).
  { pose proof (Hone i Hi). pose proof (Hone j Hj).
    assert (Hq : (1 / r < inject_Z (Z.of_nat (load s i k)) / (r * c) + inject_Z (Z.of_nat (load s j k)) / (r * c))%Q); [| lra].
    setoid_replace (inject_Z (Z.of_nat (load s i k)) / (r * c) + inject_Z (Z.of_nat (load s j k)) / (r * c))%Q
      with (inject_Z (Z.of_nat (load s i k + load s j k)) / (r * c))%Q
      by (rewrite Nat2Z.inj_add, inject_Z_plus; field; lra).
    apply Qlt_shift_div_l; [assumption |].
    setoid_replace (1 / r * (r * c))%Q with c by (field; lra).
    unfold c. rewrite <- Zlt_Qlt. lia. }
  assert (Hin : In k (seq 0 d)) by (apply in_seq; lia).
  pose proof (qsum_member (share s i) _ _ (fun k' _ => share_nonneg s i k') Hin).
  pose proof (qsum_member (share s j) _ _ (fun k' _ => share_nonneg s j k') Hin).
  unfold shares. lra.
Qed.

Lemma clashes_mean_ratio :
  forall s nodes least r, 0 < d -> (forall k, k < d -> 0 < least k) -> (1 <= r)%Q ->
  (forall i, In i nodes -> within_ratio least r i) -> NoDup nodes -> 2 <= length nodes ->
  (forall i j, In i nodes -> In j nodes -> i <> j -> clash least s i j) ->
  (1 / (2 * inject_Z (Z.of_nat d) * r) < mean s nodes)%Q.
Proof.
  intros s nodes least r Hd Hpos Hr Heq Hnd Hlen Hclash.
  assert (H : (0 < qsum (fun i => shares s i - 1 / (2 * r)) nodes)%Q).
  { apply qpairs_positive; [assumption | assumption |]. intros i j Hi Hj Hne.
    pose proof (clash_shares_ratio s i j least r Hpos Hr (Heq i Hi) (Heq j Hj) (Hclash i j Hi Hj Hne)) as Hc.
    assert (Hhalf : (1 / (2 * r) + 1 / (2 * r) == 1 / r)%Q) by (field; lra). lra. }
  rewrite qsum_shift in H. unfold mean.
  pose proof (inject_nat_pos d Hd) as Hdq.
  pose proof (inject_nat_pos (length nodes) ltac:(lia)) as Hm.
  apply Qlt_shift_div_l; [apply Qmult_lt_0_compat; assumption |].
  setoid_replace (1 / (2 * inject_Z (Z.of_nat d) * r) * (inject_Z (Z.of_nat (length nodes)) * inject_Z (Z.of_nat d)))%Q
    with (inject_Z (Z.of_nat (length nodes)) * (1 / (2 * r)))%Q by (field; lra).
  unfold node in *. lra.
Qed.

(** Unequal nodes in any order: the mean over nodes and resources is more than 1/(2dr), r being the largest capacity over the
    smallest. *)
Theorem any_fit_unequal_d_resources :
  forall asked (alike : node -> Prop) least r s nodes,
  is_class asked alike ->
  0 < d -> (forall k, k < d -> 0 < least k) -> (1 <= r)%Q -> (forall i, alike i -> within_ratio least r i) ->
  run asked anyhow s ->
  NoDup nodes -> 2 <= length nodes -> (forall i, In i nodes -> alike i /\ used s i = true) ->
  (1 / (2 * inject_Z (Z.of_nat d) * r) < mean s nodes)%Q.
Proof.
  intros asked alike least r s nodes Hperm Hd Hpos Hr Heq Hrun Hnd Hlen Hn.
  apply (clashes_mean_ratio s nodes least r); auto.
  - intros i Hi. apply Heq. apply Hn. assumption.
  - intros i j Hi Hj Hne. destruct (Hn i Hi), (Hn j Hj).
    apply (pairs_clash asked alike least Hperm anyhow); auto.
    intros s' a b _ _ Aa _ _ k Hk. apply (Heq a Aa k Hk).
Qed.

(** ** After departures: the rebalancer's form *)

(** Both nodes' containers would not go on the second. *)
Definition cannot_merge (s : state) (i j : node) : Prop :=
  ~ (forall k, k < d -> load s i k + load s j k <= capacity j k).

(** Whatever departed: once no two used nodes can merge, the bound of d resources holds again. *)
Theorem no_merge_d_resources :
  forall C s nodes, 0 < d -> (forall k, k < d -> 0 < C k) ->
  (forall i, In i nodes -> forall k, k < d -> capacity i k = C k) -> NoDup nodes -> 2 <= length nodes ->
  (forall i j, In i nodes -> In j nodes -> i <> j -> cannot_merge s i j) ->
  (1 / (2 * inject_Z (Z.of_nat d)) < mean s nodes)%Q.
Proof.
  intros C s nodes Hd Hpos Heq Hnd Hlen Hno.
  apply (clashes_mean s nodes C); auto. intros i j Hi Hj Hne.
  destruct (not_all_below d (fun k => load s i k + load s j k) (capacity j)) as (k & Hk & Hlt).
  - exact (Hno i j Hi Hj Hne).
  - exists k. rewrite (Heq j Hj k Hk) in Hlt. split; assumption.
Qed.

(** The same for unequal nodes, with 1/(2dr): what `heptad verify` compares with. *)
Theorem no_merge_unequal_d_resources :
  forall least r s nodes, 0 < d -> (forall k, k < d -> 0 < least k) -> (1 <= r)%Q ->
  (forall i, In i nodes -> within_ratio least r i) -> NoDup nodes -> 2 <= length nodes ->
  (forall i j, In i nodes -> In j nodes -> i <> j -> cannot_merge s i j) ->
  (1 / (2 * inject_Z (Z.of_nat d) * r) < mean s nodes)%Q.
Proof.
  intros least r s nodes Hd Hpos Hr Heq Hnd Hlen Hno.
  apply (clashes_mean_ratio s nodes least r); auto. intros i j Hi Hj Hne.
  destruct (not_all_below d (fun k => load s i k + load s j k) (capacity j)) as (k & Hk & Hlt).
  - exact (Hno i j Hi Hj Hne).
  - exists k. destruct (Heq j Hj k Hk). split; [assumption | lia].
Qed.
End AnyFit.

(** ** One resource, in whole numbers *)

Definition amount (s : state) (i : node) : Z := Z.of_nat (load s i 0).

Section OneResource.
Variable size : node -> nat.
Let capacity : node -> vector := fun i _ => size i.
Let room (i : node) : Z := Z.of_nat (size i).

Open Scope Z_scope.

(** Every two hold more than the mean of their capacities: so do all. *)
Lemma pairs_total :
  forall s nodes, NoDup nodes -> (2 <= length nodes)%nat ->
  (forall i j, In i nodes -> In j nodes -> i <> j -> room i + room j < 2 * (amount s i + amount s j)) ->
  zsum room nodes < 2 * zsum (amount s) nodes.
Proof.
  intros s nodes Hnd Hlen Hp.
  assert (H : 0 < zsum (fun i => 2 * amount s i + -1 * room i) nodes).
  { apply pairs_positive; auto. intros i j Hi Hj Hne. specialize (Hp i j Hi Hj Hne). lia. }
  rewrite zsum_add, (zsum_scale _ (amount s)), (zsum_scale _ room) in H. lia.
Qed.

(** Every two hold more than the least capacity: so the mean is more than half of it. *)
Lemma pairs_least :
  forall s nodes least most, NoDup nodes -> (2 <= length nodes)%nat -> 0 < least -> 0 < most ->
  (forall i, In i nodes -> room i <= most) ->
  (forall i j, In i nodes -> In j nodes -> i <> j -> least < amount s i + amount s j) ->
  least * zsum room nodes < 2 * most * zsum (amount s) nodes.
Proof.
  intros s nodes least most Hnd Hlen H0 H1 Hmost Hp.
  assert (H : 0 < zsum (fun i => 2 * amount s i + -1 * least) nodes).
  { apply pairs_positive; auto. intros i j Hi Hj Hne. specialize (Hp i j Hi Hj Hne). lia. }
  rewrite zsum_add, (zsum_scale _ (amount s)) in H.
  rewrite (zsum_const _ nodes (-1 * least)) in H.
  assert (Hroom : zsum room nodes <= zsum (fun _ => most) nodes) by (apply zsum_le; assumption).
  rewrite zsum_const in Hroom.
  nia.
Qed.

Lemma one_resource_clash :
  forall s i j limit, clash 1 limit s i j -> Z.of_nat (limit 0%nat) < amount s i + amount s j.
Proof.
  intros s i j limit (k & Hk & H). assert (k = 0%nat) by lia. subst k. unfold amount. lia.
Qed.

(** G7, one resource, equal nodes: together they have given more than half of what they have. *)
Theorem any_fit_equal_nodes :
  forall asked (alike : node -> Prop) C s nodes,
  is_class asked alike ->
  (forall i, alike i -> size i = C) -> run 1 capacity asked anyhow s ->
  NoDup nodes -> (2 <= length nodes)%nat -> (forall i, In i nodes -> alike i /\ used s i = true) ->
  Z.of_nat (length nodes) * Z.of_nat C < 2 * zsum (amount s) nodes.
Proof.
  intros asked alike C s nodes Hperm Heq Hrun Hnd Hlen Hn.
  assert (H : zsum room nodes < 2 * zsum (amount s) nodes).
  { apply pairs_total; auto. intros i j Hi Hj Hne. destruct (Hn i Hi), (Hn j Hj).
    assert (Hc : clash 1 (fun _ => C) s i j).
    { apply (pairs_clash 1 capacity asked alike (fun _ => C) Hperm anyhow); auto.
      intros s' a b _ _ Aa _ _ k _. unfold capacity. rewrite (Heq a Aa). lia. }
    apply one_resource_clash in Hc. unfold room. rewrite (Heq i), (Heq j) by assumption. lia. }
  rewrite (zsum_ext _ room (fun _ => Z.of_nat C)) in H; [rewrite zsum_const in H; exact H |].
  intros i Hi. unfold room. rewrite (Heq i); [reflexivity | apply Hn; assumption].
Qed.

(** At most one used node is at or below half. *)
Theorem any_fit_equal_nodes_one_half_empty :
  forall asked (alike : node -> Prop) C s i j,
  is_class asked alike ->
  (forall i, alike i -> size i = C) -> run 1 capacity asked anyhow s ->
  alike i -> alike j -> used s i = true -> used s j = true ->
  2 * amount s i <= Z.of_nat C -> 2 * amount s j <= Z.of_nat C -> i = j.
Proof.
  intros asked alike C s i j Hperm Heq Hrun Ai Aj Ui Uj Hi Hj.
  destruct (Nat.eq_dec i j) as [| Hne]; [assumption | exfalso].
  assert (Hc : clash 1 (fun _ => C) s i j).
  { apply (pairs_clash 1 capacity asked alike (fun _ => C) Hperm anyhow); auto.
    intros s' a b _ _ Aa _ _ k _. unfold capacity. rewrite (Heq a Aa). lia. }
  apply one_resource_clash in Hc. lia.
Qed.

(** ** Unequal nodes *)

(** Nodes are opened largest first. *)
Definition largest_first (s : state) (j : node) : Prop := forall i, used s i = true -> (size j <= size i)%nat.

Lemma largest_first_pairs :
  forall asked (alike : node -> Prop) s,
  is_class asked alike ->
  run 1 capacity asked largest_first s ->
  forall i j, alike i -> alike j -> i <> j -> used s i = true -> used s j = true ->
  Z.max (room i) (room j) < amount s i + amount s j.
Proof.
  intros asked alike s Hperm Hrun i j Ai Aj Hne Ui Uj.
  (* The limit of a pair is the capacity of the one that was opened first, which is the larger. *)
  revert i j Ai Aj Hne Ui Uj.
  induction Hrun as [| s x o Hrun IH Hask Hfit Hopen]; intros i j Ai Aj Hne Hi Hj; [discriminate |].
  assert (Hnew : forall a, alike a -> alike o -> a <> o -> used s o = false -> used s a = true ->
                 Z.max (room a) (room o) < amount (put s x o) a + amount (put s x o) o).
  { intros a Aa Ao Hao Ho Ha. destruct Hfit as [[Hp _] Hany]. specialize (Hany Ho a Ha).
    pose proof (Hopen Ho a Ha) as Hbig.
    assert (Hlt : (size a < load s a 0 + need x 0)%nat).
    { apply Nat.nle_gt. intros Hle. apply Hany. split; [apply (Hperm x o a); assumption |].
      intros k Hk. assert (k = 0%nat) by lia. subst k. exact Hle. }
    unfold amount, room. rewrite put_load_same, put_load_other by assumption. lia. }
  destruct (Nat.eq_dec i o) as [-> | Hio].
  - rewrite put_used_other in Hj by auto. destruct (used s o) eqn:Ho.
    + specialize (IH o j Ai Aj Hne Ho Hj). unfold amount in *. rewrite put_load_same, put_load_other by auto. lia.
    + specialize (Hnew j Aj Ai (not_eq_sym Hne) eq_refl Hj). lia.
  - rewrite put_used_other in Hi by auto. destruct (Nat.eq_dec j o) as [-> | Hjo].
    + destruct (used s o) eqn:Ho.
      * specialize (IH i o Ai Aj Hne Hi Ho). unfold amount in *. rewrite put_load_same, put_load_other by auto. lia.
      * apply Hnew; auto.
    + rewrite put_used_other in Hj by auto. specialize (IH i j Ai Aj Hne Hi Hj).
      unfold amount in *. rewrite !put_load_other by auto. lia.
Qed.

(** Opened in non-increasing capacity, they too have given more than half of what they have. *)
Theorem any_fit_largest_first :
  forall asked (alike : node -> Prop) s nodes,
  is_class asked alike ->
  run 1 capacity asked largest_first s ->
  NoDup nodes -> (2 <= length nodes)%nat -> (forall i, In i nodes -> alike i /\ used s i = true) ->
  zsum room nodes < 2 * zsum (amount s) nodes.
Proof.
  intros asked alike s nodes Hperm Hrun Hnd Hlen Hn. apply pairs_total; auto. intros i j Hi Hj Hne.
  destruct (Hn i Hi) as [Ai Ui], (Hn j Hj) as [Aj Uj].
  pose proof (largest_first_pairs asked alike s Hperm Hrun i j Ai Aj Hne Ui Uj). lia.
Qed.

(** Opened in any order: more than C_min / (2 C_max) of what they have. *)
Theorem any_fit_any_order :
  forall asked (alike : node -> Prop) least most s nodes,
  is_class asked alike ->
  (0 < least <= most)%nat -> (forall i, alike i -> (least <= size i <= most)%nat) -> run 1 capacity asked anyhow s ->
  NoDup nodes -> (2 <= length nodes)%nat -> (forall i, In i nodes -> alike i /\ used s i = true) ->
  Z.of_nat least * zsum room nodes < 2 * Z.of_nat most * zsum (amount s) nodes.
Proof.
  intros asked alike least most s nodes Hperm Hlm Hsize Hrun Hnd Hlen Hn. apply pairs_least; auto; try lia.
  - intros i Hi. destruct (Hn i Hi) as [Ai _]. specialize (Hsize i Ai). unfold room. lia.
  - intros i j Hi Hj Hne. destruct (Hn i Hi), (Hn j Hj).
    assert (Hc : clash 1 (fun _ => least) s i j).
    { apply (pairs_clash 1 capacity asked alike (fun _ => least) Hperm anyhow); auto.
      intros s' a b _ _ Aa _ _ k _. apply (Hsize a Aa). }
    apply one_resource_clash in Hc. exact Hc.
Qed.

(** Once no two used nodes can merge, unequal nodes have given more than half of what they have. *)
Theorem no_merge_unequal_nodes :
  forall s nodes, NoDup nodes -> (2 <= length nodes)%nat ->
  (forall i j, In i nodes -> In j nodes -> i <> j -> cannot_merge 1 capacity s i j) ->
  zsum room nodes < 2 * zsum (amount s) nodes.
Proof.
  intros s nodes Hnd Hlen Hno. apply pairs_total; auto.
  assert (Hone : forall i j, In i nodes -> In j nodes -> i <> j -> room j < amount s i + amount s j).
  { intros i j Hi Hj Hne. unfold room, amount.
    assert ((size j < load s i 0 + load s j 0)%nat); [| lia].
    apply Nat.nle_gt. intros Hle. apply (Hno i j Hi Hj Hne).
    intros k Hk. assert (k = 0%nat) by lia. subst k. exact Hle. }
  intros i j Hi Hj Hne. pose proof (Hone i j Hi Hj Hne). pose proof (Hone j i Hj Hi (not_eq_sym Hne)). lia.
Qed.

(** ** Best-fit as Heptad has it: the node with the least room, used or not *)

(** The nodes there are, all of one class; each container asks something. *)
Variable exists_node : node -> Prop.

Definition free (s : state) (i : node) : Z := room i - amount s i.

Definition best_fit (s : state) (x : item) (j : node) : Prop :=
  exists_node j /\ Z.of_nat (need x 0%nat) <= free s j
  /\ (forall i, exists_node i -> Z.of_nat (need x 0%nat) <= free s i -> free s j <= free s i).

Inductive best_fit_run : state -> Prop :=
  | best_empty : best_fit_run empty
  | best_put s x j : best_fit_run s -> (0 < need x 0)%nat -> best_fit s x j -> best_fit_run (put s x j).

Record best_fit_facts (s : state) : Prop := {
  unused_empty : forall i, used s i = false -> amount s i = 0;
  used_holds : forall i, used s i = true -> 0 < amount s i;
  smaller_left : forall i j, exists_node i -> exists_node j -> used s i = true -> used s j = false ->
    room j < room i -> room j < amount s i;
  two_used : forall i j, exists_node i -> exists_node j -> i <> j -> used s i = true -> used s j = true ->
    Z.min (room i) (room j) < amount s i + amount s j;
}.

Lemma amount_put_same : forall s x j, amount (put s x j) j = amount s j + Z.of_nat (need x 0%nat).
Proof. intros. unfold amount. rewrite put_load_same. lia. Qed.

Lemma amount_put_other : forall s x i j, i <> j -> amount (put s x j) i = amount s i.
Proof. intros. unfold amount. rewrite put_load_other by assumption. reflexivity. Qed.

Lemma best_fit_invariant : forall s, best_fit_run s -> best_fit_facts s.
Proof.
  induction 1 as [| s x o Hrun [Fe Fh Fs Ft] Hx (Eo & Hfit & Hbest)].
  - split; cbn; try discriminate. reflexivity.
  - assert (Hnew : forall j, exists_node j -> j <> o -> used s o = false -> used s j = true ->
                   Z.min (room o) (room j) < amount s o + Z.of_nat (need x 0%nat) + amount s j).
    { intros j Ej Hjo Ho Hj. pose proof (Fe o Ho). pose proof (Fh j Hj).
      destruct (Z_le_gt_dec (Z.of_nat (need x 0%nat)) (free s j)) as [Hle | Hgt].
      - specialize (Hbest j Ej Hle). unfold free in *.
        pose proof (Fs j o Ej Eo Hj Ho). lia.
      - unfold free in *. lia. }
    split.
    + intros i Hi. destruct (Nat.eq_dec i o) as [-> | Hne]; [rewrite put_used_same in Hi; discriminate |].
      rewrite amount_put_other by assumption. apply Fe. rewrite put_used_other in Hi; assumption.
    + intros i Hi. destruct (Nat.eq_dec i o) as [-> | Hne].
      * rewrite amount_put_same. unfold amount. lia.
      * rewrite amount_put_other by assumption. apply Fh. rewrite put_used_other in Hi; assumption.
    + intros i j Ei Ej Hi Hj Hlt.
      destruct (Nat.eq_dec j o) as [-> | Hjo]; [rewrite put_used_same in Hj; discriminate |].
      rewrite put_used_other in Hj by assumption.
      destruct (Nat.eq_dec i o) as [-> | Hio].
      * rewrite amount_put_same. destruct (used s o) eqn:Ho.
        -- pose proof (Fs o j Ei Ej Ho Hj Hlt). lia.
        -- pose proof (Fe o Ho). pose proof (Fe j Hj).
           destruct (Z_le_gt_dec (Z.of_nat (need x 0%nat)) (free s j)) as [Hle | Hgt].
           ++ specialize (Hbest j Ej Hle). unfold free in *. lia.
           ++ unfold free in *. lia.
      * rewrite put_used_other in Hi by assumption. rewrite amount_put_other by assumption. apply (Fs i j); assumption.
    + intros i j Ei Ej Hne Hi Hj.
      destruct (Nat.eq_dec i o) as [-> | Hio].
      * rewrite put_used_other in Hj by auto. rewrite amount_put_same, amount_put_other by auto.
        destruct (used s o) eqn:Ho; [pose proof (Ft o j Ei Ej Hne Ho Hj) | pose proof (Hnew j Ej (not_eq_sym Hne) eq_refl Hj)];
          lia.
      * rewrite put_used_other in Hi by auto. destruct (Nat.eq_dec j o) as [-> | Hjo].
        -- rewrite amount_put_same, amount_put_other by auto.
           destruct (used s o) eqn:Ho; [pose proof (Ft i o Ei Ej Hne Hi Ho) | pose proof (Hnew i Ei Hne eq_refl Hi)]; lia.
        -- rewrite put_used_other in Hj by auto. rewrite !amount_put_other by auto. apply Ft; assumption.
Qed.

(** Best-fit over all nodes opens a small unused one before it fills a large used one, so it is any-fit only among nodes of
    one capacity. There at most one is at or below half. *)
Theorem best_fit_one_half_empty_per_capacity :
  forall s i j, best_fit_run s -> exists_node i -> exists_node j -> room i = room j ->
  used s i = true -> used s j = true -> 2 * amount s i <= room i -> 2 * amount s j <= room j -> i = j.
Proof.
  intros s i j Hrun Ei Ej Heq Ui Uj Hi Hj.
  destruct (Nat.eq_dec i j) as [| Hne]; [assumption | exfalso].
  pose proof (two_used s (best_fit_invariant s Hrun) i j Ei Ej Hne Ui Uj). lia.
Qed.

(** Unequal nodes in any order: more than C_min / (2 C_max) of what they have, although it is not any-fit. *)
Theorem best_fit_unequal_nodes :
  forall least most s nodes,
  (0 < least <= most)%nat -> (forall i, exists_node i -> (least <= size i <= most)%nat) -> best_fit_run s ->
  NoDup nodes -> (2 <= length nodes)%nat -> (forall i, In i nodes -> exists_node i /\ used s i = true) ->
  Z.of_nat least * zsum room nodes < 2 * Z.of_nat most * zsum (amount s) nodes.
Proof.
  intros least most s nodes Hlm Hsize Hrun Hnd Hlen Hn. apply pairs_least; auto; try lia.
  - intros i Hi. destruct (Hn i Hi) as [Ei _]. specialize (Hsize i Ei). unfold room. lia.
  - intros i j Hi Hj Hne. destruct (Hn i Hi) as [Ei Ui], (Hn j Hj) as [Ej Uj].
    pose proof (two_used s (best_fit_invariant s Hrun) i j Ei Ej Hne Ui Uj).
    pose proof (Hsize i Ei). pose proof (Hsize j Ej). unfold room in *. lia.
Qed.
End OneResource.

(** ** Least room is any-fit on equal nodes, whatever the number of resources *)

(** Room measured by any number that grows with it, as the scheduler does by a weighted sum. *)
Section Measured.
Variable d : nat.
Variable C : vector.
Variable measure : vector -> nat.
Let capacity : node -> vector := fun _ => C.

Definition left (s : state) (i : node) : vector := fun k => C k - load s i k.

(** More of one resource and no less of any other measures more. *)
Hypothesis measure_grows :
  forall a b, (forall k, k < d -> a k <= b k) -> (exists k, k < d /\ a k < b k) -> measure a < measure b.

Definition least_room (s : state) (x : item) (j : node) : Prop :=
  takes d capacity s x j /\ forall i, takes d capacity s x i -> measure (left s j) <= measure (left s i).

Theorem least_room_is_any_fit :
  forall s x j,
  (forall i, used s i = false -> forall k, load s i k = 0) ->
  (forall i, used s i = true -> exists k, k < d /\ 0 < load s i k) ->
  least_room s x j -> any_fit d capacity s x j.
Proof.
  intros s x j Hempty Hholds [Htakes Hleast]. split; [assumption |].
  intros Hj i Hi Hti. specialize (Hleast i Hti).
  assert (measure (left s i) < measure (left s j)); [| lia].
  destruct Hti as [_ Hfits]. destruct (Hholds i Hi) as (k & Hk & Hpos). apply measure_grows.
  - intros k' _. unfold left. rewrite (Hempty j Hj). lia.
  - exists k. split; [assumption |]. unfold left. rewrite (Hempty j Hj).
    specialize (Hfits k Hk). unfold capacity in Hfits. lia.
Qed.
End Measured.

(** ** Tight: no larger constant is true *)

(** So many nodes of size 2h, on each a container that asks h + 1 of the first of d resources and nothing of the others. *)
Definition just_over_half (h : nat) : item :=
  {| need := fun k => if k =? 0 then h + 1 else 0; permits := fun _ => True |}.

Definition twice (h : nat) : node -> vector := fun _ _ => 2 * h.

Lemma tight_run :
  forall d h m, 0 < d -> 0 < h -> exists s, run d (twice h) (eq (just_over_half h)) anyhow s /\
  (forall i, used s i = (i <? m)) /\ (forall i, i < m -> forall k, load s i k = if k =? 0 then h + 1 else 0).
Proof.
  intros d h m Hd Hh. induction m as [| m (s & Hrun & Hused & Hload)].
  - exists empty. split; [constructor |]. split; intros; [reflexivity | lia].
  - exists (put s (just_over_half h) m).
    assert (Hfree : used s m = false) by (rewrite Hused; apply Nat.ltb_irrefl).
    pose proof (unused_is_empty d (twice h) (eq (just_over_half h)) anyhow s Hrun m Hfree) as Hzero.
    split; [| split].
    + apply run_put; [assumption | reflexivity | | intros; exact I]. split.
      * split; [exact I |]. intros k _. rewrite Hzero. cbn. unfold twice. destruct (k =? 0); lia.
      * intros _ i Hi [_ Hfit]. rewrite Hused in Hi. apply Nat.ltb_lt in Hi.
        specialize (Hfit 0 Hd). rewrite (Hload i Hi) in Hfit. cbn in Hfit. unfold twice in Hfit. lia.
    + intros i. destruct (Nat.eq_dec i m) as [-> | Hne].
      * rewrite put_used_same. symmetry. apply Nat.ltb_lt. lia.
      * rewrite put_used_other, Hused by assumption. destruct (i <? m) eqn:E; symmetry.
        -- apply Nat.ltb_lt in E. apply Nat.ltb_lt. lia.
        -- apply Nat.ltb_ge in E. apply Nat.ltb_ge. lia.
    + intros i Hi k. destruct (Nat.eq_dec i m) as [-> | Hne].
      * rewrite put_load_same, Hzero. reflexivity.
      * rewrite put_load_other by assumption. apply Hload. lia.
Qed.

Lemma tight_shares :
  forall d h s i, 0 < d -> 0 < h -> (forall k, load s i k = if k =? 0 then h + 1 else 0) ->
  (shares d (twice h) s i == inject_Z (Z.of_nat (h + 1)) / inject_Z (Z.of_nat (2 * h)))%Q.
Proof.
  intros d h s i Hd Hh Hload. destruct d as [| d]; [lia |]. unfold shares. cbn [seq qsum].
  assert (H : (qsum (share (twice h) s i) (seq 1 d) == 0)%Q).
  { assert (Hall : forall l, (forall k, In k l -> 1 <= k) -> (qsum (share (twice h) s i) l == 0)%Q).
    { induction l as [| k l IH]; intros Hl; [reflexivity |]. cbn [qsum].
      rewrite IH by (intros; apply Hl; right; assumption).
      unfold share. rewrite Hload. specialize (Hl k (or_introl eq_refl)).
      destruct (k =? 0) eqn:E; [apply Nat.eqb_eq in E; lia |]. unfold Qdiv. cbn. ring. }
    apply Hall. intros k Hk. apply in_seq in Hk. lia. }
  rewrite H. unfold share. rewrite Hload. cbn [Nat.eqb]. unfold twice. ring.
Qed.

(** For every d and every number of nodes there are runs whose mean is (h + 1) / (2 h d): as near to 1/(2d) as one likes. *)
Theorem any_fit_d_resources_tight :
  forall d h m, 0 < d -> 0 < h -> 0 < m -> exists s, run d (twice h) (eq (just_over_half h)) anyhow s /\
  (forall i, used s i = (i <? m)) /\
  (mean d (twice h) s (seq 0 m) ==
   inject_Z (Z.of_nat (h + 1)) / (inject_Z (Z.of_nat (2 * h)) * inject_Z (Z.of_nat d)))%Q.
Proof.
  intros d h m Hd Hh Hm. destruct (tight_run d h m Hd Hh) as (s & Hrun & Hused & Hload).
  exists s. split; [assumption |]. split; [assumption |]. unfold mean. rewrite seq_length.
  set (a := (inject_Z (Z.of_nat (h + 1)) / inject_Z (Z.of_nat (2 * h)))%Q).
  assert (Hall : forall l, (forall i, In i l -> i < m) ->
                 (qsum (shares d (twice h) s) l == inject_Z (Z.of_nat (length l)) * a)%Q).
  { induction l as [| i l IH]; intros Hl; [cbn; ring |]. cbn [qsum length].
    rewrite IH by (intros; apply Hl; right; assumption).
    rewrite (tight_shares d h s i Hd Hh (Hload i (Hl i (or_introl eq_refl)))). fold a.
    rewrite Nat2Z.inj_succ. unfold Z.succ. rewrite inject_Z_plus. ring. }
  rewrite Hall by (intros i Hi; apply in_seq in Hi; lia). rewrite seq_length. unfold a.
  pose proof (inject_nat_pos d Hd). pose proof (inject_nat_pos m Hm). pose proof (inject_nat_pos (2 * h) ltac:(lia)).
  field. repeat split; lra.
Qed.

(** The bound is true of these runs, so its hypotheses can be met. *)
Example tight_runs_meet_the_bound :
  forall d h m, 0 < d -> 0 < h -> 2 <= m -> exists s, run d (twice h) (eq (just_over_half h)) anyhow s /\
  (1 / (2 * inject_Z (Z.of_nat d)) < mean d (twice h) s (seq 0 m))%Q.
Proof.
  intros d h m Hd Hh Hm. destruct (tight_run d h m Hd Hh) as (s & Hrun & Hused & _).
  exists s. split; [assumption |].
  apply (any_fit_d_resources d (twice h) (eq (just_over_half h)) (fun _ => True) (fun _ => 2 * h)); auto; try lia.
  - intros x i j <- _ _ _. exact I.
  - apply seq_NoDup.
  - rewrite seq_length. assumption.
  - intros i Hi. split; [exact I |]. rewrite Hused. apply Nat.ltb_lt. apply in_seq in Hi. lia.
Qed.

(** ** The conditions matter *)

Definition asking (n : nat) : item := {| need := fun _ => n; permits := fun _ => True |}.

Fixpoint fill (s : state) (plan : list (nat * node)) : state :=
  match plan with
  | [] => s
  | (n, j) :: rest => fill (put s (asking n) j) rest
  end.

(** Unequal nodes, the small one opened first: 10 and 100, containers 6 and 5. One tenth is used. *)
Definition sizes (i : node) : nat := match i with 0 => 10 | _ => 100 end.

Example smallest_first_is_below_half :
  let s := fill empty [(6, 0); (5, 1)] in
  run 1 (fun i _ => sizes i) (fun _ => True) anyhow s /\ load s 0 0 + load s 1 0 = 11.
Proof.
  split; [| reflexivity].
  apply (run_put 1 _ _ anyhow (put empty (asking 6) 0) (asking 5) 1);
    [apply (run_put 1 _ _ anyhow empty (asking 6) 0); [constructor | | |] | | |]; try (intros; exact I).
  - split; [split; [exact I | intros k _; cbn; lia] |]. intros _ i Hi. discriminate.
  - split; [split; [exact I | intros k _; cbn; lia] |].
    intros _ i Hi [_ Hfit]. destruct i as [| i]; [| discriminate]. specialize (Hfit 0 Nat.lt_0_1). cbn in Hfit. lia.
Qed.

(** What a container that departs leaves. *)
Definition depart (s : state) (n : nat) (j : node) : state :=
  {| load := fun i => if i =? j then fun k => load s j k - n else load s i; used := used s |}.

(** Departures: two nodes of 10 get 1 and 9 each, and both 9 depart. A tenth is used, and the nodes can merge. *)
Example departures_break_the_bound :
  let s := depart (depart (fill empty [(1, 0); (9, 0); (1, 1); (9, 1)]) 9 0) 9 1 in
  load s 0 0 = 1 /\ load s 1 0 = 1 /\ ~ cannot_merge 1 (fun _ _ => 10) s 0 1.
Proof.
  split; [reflexivity |]. split; [reflexivity |]. intros H. apply H. intros k _. cbn. lia.
Qed.
