(** * G5 certified optimality: what a certificate proves

    Minimise sum c_ij x_ij + sum f_j y_j, each container on one node that is allowed for it, each node within its capacity,
    y_j = 1 for the nodes that are used, and side conditions (a budget of moves) on the whole. For all multipliers that
    are not negative

      sum_i min_j (c_ij + v_j . r_i + s_ij + sum_t w_t p_tij) + sum_j min(0, f_j - v_j . C_j - sum_i s_ij) - sum_t w_t B_t

    is at most the cost of every feasible assignment: Lagrange's bound, of which the linear program's dual is the best. Whoever
    checks a certificate computes this one number. Multipliers are rational, of one denominator, so all is in whole numbers.

    References: Shmoys, Tardos 1993 (the assignment problem and its relaxation). *)

From Coq Require Import List ZArith Arith Bool Lia.
From Heptad Require Import Sums.
Import ListNotations.
Open Scope Z_scope.

Definition container := nat.
Definition node := nat.
Definition resource := nat.
Definition side := nat.

Record problem := {
  containers : list container;
  nodes : list node;
  resources : list resource;
  allowed : container -> node -> bool;
  cost : container -> node -> Z;
  opening : node -> Z;
  request : container -> resource -> Z;
  capacity : node -> resource -> Z;
  (** Side conditions: the prices of all containers together are within a budget, as moves are. *)
  sides : list side;
  price : side -> container -> node -> Z;
  budget : side -> Z;
}.

Section Bound.
Variable P : problem.

Definition assignment := container -> node.

Definition here (a : assignment) (j : node) (i : container) : Z := if (a i =? j)%nat then 1 else 0.

Definition is_used (a : assignment) (j : node) : bool := existsb (fun i => (a i =? j)%nat) (containers P).

Definition given (a : assignment) (j : node) (k : resource) : Z :=
  zsum (fun i => here a j i * request P i k) (containers P).

Record feasible (a : assignment) : Prop := {
  on_nodes : forall i, In i (containers P) -> In (a i) (nodes P);
  permitted : forall i, In i (containers P) -> allowed P i (a i) = true;
  within : forall j k, In j (nodes P) -> In k (resources P) -> given a j k <= capacity P j k;
  within_budget : forall t, In t (sides P) -> zsum (fun i => price P t i (a i)) (containers P) <= budget P t;
}.

Definition opened (a : assignment) (j : node) : Z := if is_used a j then opening P j else 0.

Definition total (a : assignment) : Z :=
  zsum (fun i => cost P i (a i)) (containers P) + zsum (opened a) (nodes P).

(** ** The certificate: multipliers of capacities and of side conditions, and their denominator *)

(** [v] prices capacities, [w] side conditions, and [st] that a container on a node keeps the node open. *)
Record certificate := { v : node -> resource -> Z; st : container -> node -> Z; w : side -> Z; scale : Z }.

Record nonnegative (m : certificate) : Prop := {
  v_nonneg : forall j k, 0 <= v m j k;
  st_nonneg : forall i j, 0 <= st m i j;
  w_nonneg : forall t, 0 <= w m t;
  scale_pos : 0 < scale m;
}.

Definition reduced (m : certificate) (i : container) (j : node) : Z :=
  scale m * cost P i j + zsum (fun k => v m j k * request P i k) (resources P)
  + st m i j + zsum (fun t => w m t * price P t i j) (sides P).

(** The least over the nodes that are allowed; of a container that no node may take, any number would do. *)
Fixpoint least (f : node -> Z) (l : list node) : option Z :=
  match l with
  | [] => None
  | j :: l' => Some (match least f l' with None => f j | Some m => Z.min (f j) m end)
  end.

Definition cheapest (m : certificate) (i : container) : Z :=
  match least (reduced m i) (filter (allowed P i) (nodes P)) with None => 0 | Some x => x end.

Definition node_term (m : certificate) (j : node) : Z :=
  Z.min 0 (scale m * opening P j - zsum (fun k => v m j k * capacity P j k) (resources P)
           - zsum (fun i => st m i j) (containers P)).

Definition bound (m : certificate) : Z :=
  zsum (cheapest m) (containers P) + zsum (node_term m) (nodes P) - zsum (fun t => w m t * budget P t) (sides P).

(** ** The proof *)

Lemma least_below : forall f l j, In j l -> exists m, least f l = Some m /\ m <= f j.
Proof.
  intros f l j; induction l as [| i l IH]; cbn; intros H; [contradiction |].
  destruct H as [-> | H].
  - destruct (least f l) as [m |]; eexists; (split; [reflexivity |]); lia.
  - destruct (IH H) as (m & -> & Hm). eexists. split; [reflexivity |]. lia.
Qed.

Lemma cheapest_below :
  forall m a i, feasible a -> In i (containers P) -> cheapest m i <= reduced m i (a i).
Proof.
  intros m a i Hf Hi. unfold cheapest.
  destruct (least_below (reduced m i) (filter (allowed P i) (nodes P)) (a i)) as (x & -> & Hx); [| assumption].
  apply filter_In. split; [apply (on_nodes a Hf i Hi) | apply (permitted a Hf i Hi)].
Qed.

(** A node's own sum, taken at the node of each container. *)
Lemma sum_at :
  forall (f : node -> Z) j l, NoDup l -> In j l -> zsum (fun j' => (if (j =? j')%nat then 1 else 0) * f j') l = f j.
Proof.
  intros f j l Hnd; induction Hnd as [| i l Hni Hnd IH]; cbn; intros H; [contradiction |].
  destruct (Nat.eqb_spec j i) as [-> | Hne].
  - assert (E : zsum (fun j' => (if (i =? j')%nat then 1 else 0) * f j') l = zsum (fun _ => 0) l).
    { apply zsum_ext. intros j' Hj'. destruct (Nat.eqb_spec i j') as [-> | _]; [contradiction | lia]. }
    rewrite E, zsum_const. lia.
  - destruct H as [-> | H]; [contradiction |]. rewrite (IH H). lia.
Qed.

(** What the containers pay for capacity is, node by node, the price of what the node has given. *)
Lemma payments :
  forall m a, NoDup (nodes P) -> feasible a ->
  zsum (fun i => zsum (fun k => v m (a i) k * request P i k) (resources P)) (containers P) =
  zsum (fun j => zsum (fun k => v m j k * given a j k) (resources P)) (nodes P).
Proof.
  intros m a Hnd Hf.
  transitivity (zsum (fun i => zsum (fun j => here a j i * zsum (fun k => v m j k * request P i k) (resources P)) (nodes P))
                     (containers P)).
  - apply zsum_ext. intros i Hi. symmetry.
    exact (sum_at (fun j => zsum (fun k => v m j k * request P i k) (resources P)) (a i) (nodes P) Hnd (on_nodes a Hf i Hi)).
  - rewrite zsum_swap. apply zsum_ext. intros j _.
    transitivity (zsum (fun i => zsum (fun k => v m j k * (here a j i * request P i k)) (resources P)) (containers P)).
    + apply zsum_ext. intros i _. rewrite <- zsum_scale. apply zsum_ext. intros k _. ring.
    + rewrite zsum_swap. apply zsum_ext. intros k _. rewrite zsum_scale. reflexivity.
Qed.

(** What containers pay for being where they are, node by node. *)
Lemma staying :
  forall m a, NoDup (nodes P) -> feasible a ->
  zsum (fun i => st m i (a i)) (containers P) =
  zsum (fun j => zsum (fun i => here a j i * st m i j) (containers P)) (nodes P).
Proof.
  intros m a Hnd Hf. rewrite <- zsum_swap. apply zsum_ext. intros i Hi. symmetry.
  exact (sum_at (fun j => st m i j) (a i) (nodes P) Hnd (on_nodes a Hf i Hi)).
Qed.

Lemma unused_has_nobody : forall a j i, is_used a j = false -> In i (containers P) -> here a j i = 0.
Proof.
  intros a j i H Hi. unfold here. destruct (Nat.eqb_spec (a i) j) as [E | _]; [| reflexivity].
  exfalso. unfold is_used in H. rewrite <- not_true_iff_false in H. apply H. apply existsb_exists.
  exists i. split; [assumption | apply Nat.eqb_eq; assumption].
Qed.

Lemma unused_gives_nothing : forall a j k, is_used a j = false -> given a j k = 0.
Proof.
  intros a j k H. unfold given.
  rewrite (zsum_ext _ _ (fun _ => 0)); [rewrite zsum_const; lia |].
  intros i Hi. rewrite unused_has_nobody by assumption. lia.
Qed.

Lemma node_terms :
  forall m a j, nonnegative m -> feasible a -> In j (nodes P) ->
  node_term m j + (zsum (fun k => v m j k * given a j k) (resources P) + zsum (fun i => here a j i * st m i j) (containers P))
  <= scale m * opened a j.
Proof.
  intros m a j Hm Hf Hj. unfold node_term, opened. destruct (is_used a j) eqn:E.
  - assert (H : zsum (fun k => v m j k * given a j k) (resources P) <= zsum (fun k => v m j k * capacity P j k) (resources P)).
    { apply zsum_le. intros k Hk. apply Z.mul_le_mono_nonneg_l; [apply (v_nonneg m Hm) | apply (within a Hf); assumption]. }
    assert (H' : zsum (fun i => here a j i * st m i j) (containers P) <= zsum (fun i => st m i j) (containers P)).
    { apply zsum_le. intros i _. unfold here. pose proof (st_nonneg m Hm i j). destruct (a i =? j)%nat; lia. }
    lia.
  - rewrite (zsum_ext _ (fun k => v m j k * given a j k) (fun _ => 0)), (zsum_ext _ (fun i => here a j i * st m i j) (fun _ => 0)).
    + rewrite !zsum_const. lia.
    + intros i Hi. rewrite unused_has_nobody by assumption. lia.
    + intros k _. rewrite unused_gives_nothing by assumption. lia.
Qed.

(** ** What is promised *)

(** Weak duality: every certificate's number is below the cost of every feasible assignment. *)
Theorem certificate_is_a_lower_bound :
  forall m a, NoDup (nodes P) -> nonnegative m -> feasible a -> bound m <= scale m * total a.
Proof.
  intros m a Hnd Hm Hf. unfold bound, total.
  assert (H1 : zsum (cheapest m) (containers P) <= zsum (fun i => reduced m i (a i)) (containers P)).
  { apply zsum_le. intros i Hi. apply cheapest_below; assumption. }
  unfold reduced in H1. rewrite zsum_add, zsum_add, zsum_add, zsum_scale in H1.
  rewrite (payments m a Hnd Hf), (staying m a Hnd Hf), (zsum_swap _ _ (fun i t => w m t * price P t i (a i))) in H1.
  assert (H2 : zsum (fun t => zsum (fun i => w m t * price P t i (a i)) (containers P)) (sides P)
               <= zsum (fun t => w m t * budget P t) (sides P)).
  { apply zsum_le. intros t Ht. rewrite zsum_scale.
    apply Z.mul_le_mono_nonneg_l; [apply (w_nonneg m Hm) | apply (within_budget a Hf); assumption]. }
  assert (H3 : zsum (fun j => node_term m j + (zsum (fun k => v m j k * given a j k) (resources P)
                                               + zsum (fun i => here a j i * st m i j) (containers P))) (nodes P)
               <= zsum (fun j => scale m * opened a j) (nodes P)).
  { apply zsum_le. intros j Hj. apply node_terms; assumption. }
  rewrite zsum_add, zsum_add, zsum_scale in H3. lia.
Qed.

(** Costs are whole numbers, so the bound may be rounded up. *)
Theorem bound_rounds_up :
  forall m a, NoDup (nodes P) -> nonnegative m -> feasible a -> (bound m + scale m - 1) / scale m <= total a.
Proof.
  intros m a Hnd Hm Hf. pose proof (certificate_is_a_lower_bound m a Hnd Hm Hf) as H.
  pose proof (scale_pos m Hm). apply Z.lt_succ_r, Z.div_lt_upper_bound; nia.
Qed.

(** A solution whose cost is the bound is optimal, and otherwise no other is cheaper by more than the gap. *)
Theorem gap_is_certified :
  forall m a b, NoDup (nodes P) -> nonnegative m -> feasible a -> feasible b ->
  scale m * (total a - total b) <= scale m * total a - bound m.
Proof. intros m a b Hnd Hm Ha Hb. pose proof (certificate_is_a_lower_bound m b Hnd Hm Hb). lia. Qed.
End Bound.

(** ** Nodes that are too small, and what is left out *)

Definition large_enough (P : problem) (i : container) (j : node) : bool :=
  allowed P i j && forallb (fun k => request P i k <=? capacity P j k) (resources P).

(** The same problem, in which a container may go only where it fits at all. *)
Definition narrowed (P : problem) : problem :=
  {| containers := containers P; nodes := nodes P; resources := resources P; allowed := large_enough P; cost := cost P;
     opening := opening P; request := request P; capacity := capacity P; sides := sides P; price := price P;
     budget := budget P |}.

(** The least need be taken over such nodes only: the bound becomes no smaller, and is still one. *)
Theorem small_nodes_need_no_look :
  forall P m a, NoDup (nodes P) -> (forall i k, 0 <= request P i k) -> nonnegative m -> feasible P a ->
  bound (narrowed P) m <= scale m * total P a.
Proof.
  intros P m a Hnd Hr Hm Hf.
  change (total P a) with (total (narrowed P) a). apply certificate_is_a_lower_bound; [assumption | assumption |].
  destruct Hf as [Hon Hp Hw Hb]. split; [exact Hon | | exact Hw | exact Hb].
  intros i Hi. cbn. unfold large_enough. rewrite (Hp i Hi). cbn. apply forallb_forall. intros k Hk. apply Z.leb_le.
  apply Z.le_trans with (given P a (a i) k); [| apply Hw; [apply Hon; assumption | assumption]].
  unfold given. change (In i (containers P)) in Hi. revert Hi. generalize (containers P). clear - Hr. induction l as [| c l IH]; intros Hi; [destruct Hi |]. cbn [zsum].
  assert (Hnn : forall l', 0 <= zsum (fun i0 => here a (a i) i0 * request P i0 k) l').
  { intros l'. apply zsum_nonneg. intros c' _. unfold here. specialize (Hr c' k). destruct (a c' =? a i)%nat; lia. }
  destruct Hi as [-> | Hi].
  - unfold here at 1. rewrite Nat.eqb_refl. specialize (Hnn l). lia.
  - specialize (IH Hi). unfold here at 1. specialize (Hr c k). destruct (a c =? a i)%nat; lia.
Qed.

(** ** The other certificate: a price for each container, and what a node can earn *)

Section ItemPrices.
Variable P : problem.
(** What each container is worth; what it costs to leave it out (its worth, if it may not be); who is left out. *)
Variables worth without : container -> Z.
Variable out : container -> bool.
Variable a : container -> node.
(** The resource that is kept; and no less than what any containers that fit can bring to a node, as a knapsack says. *)
Variable k : resource.
Variable most : node -> Z.

Definition on (j : node) (i : container) : bool := negb (out i) && (a i =? j)%nat.

Definition is_open (j : node) : bool := existsb (on j) (containers P).

Definition spent : Z :=
  zsum (fun i => if out i then without i else cost P i (a i)) (containers P)
  + zsum (fun j => if is_open j then opening P j else 0) (nodes P).

Lemma not_open : forall j (f : container -> Z), is_open j = false -> zsum (fun i => if on j i then f i else 0) (containers P) = 0.
Proof.
  intros j f H. rewrite (zsum_ext _ _ (fun _ => 0)); [rewrite zsum_const; lia |].
  intros i Hi. destruct (on j i) eqn:E; [| reflexivity]. exfalso.
  unfold is_open in H. rewrite <- not_true_iff_false in H. apply H. apply existsb_exists. exists i. split; assumption.
Qed.

(** Whatever prices the containers are given: their sum, less what nodes earn above their opening costs, is a lower bound. *)
Theorem item_prices_are_a_lower_bound :
  NoDup (nodes P) ->
  (forall i, In i (containers P) -> out i = false -> In (a i) (nodes P)) ->
  (forall j, In j (nodes P) -> zsum (fun i => if on j i then request P i k else 0) (containers P) <= capacity P j k) ->
  (forall j (some : container -> bool), In j (nodes P) ->
     zsum (fun i => if some i then request P i k else 0) (containers P) <= capacity P j k ->
     zsum (fun i => if some i then worth i - cost P i j else 0) (containers P) <= most j) ->
  zsum (fun i => Z.min (without i) (worth i)) (containers P) + zsum (fun j => Z.min 0 (opening P j - most j)) (nodes P) <= spent.
Proof.
  intros Hnd Hon Hfit Hmost. unfold spent.
  assert (H1 : zsum (fun i => Z.min (without i) (worth i)) (containers P)
               <= zsum (fun i => if out i then without i else worth i) (containers P)).
  { apply zsum_le. intros i _. destruct (out i); lia. }
  assert (H2 : zsum (fun i => if out i then without i else worth i) (containers P) =
               zsum (fun i => if out i then without i else cost P i (a i)) (containers P)
               + zsum (fun j => zsum (fun i => if on j i then worth i - cost P i j else 0) (containers P)) (nodes P)).
  { rewrite <- zsum_swap, <- zsum_add. apply zsum_ext. intros i Hi. destruct (out i) eqn:E.
    - rewrite (zsum_ext _ _ (fun _ => 0)); [rewrite zsum_const; lia |]. intros j _. unfold on. rewrite E. reflexivity.
    - rewrite (zsum_ext _ _ (fun j => (if (a i =? j)%nat then 1 else 0) * (worth i - cost P i j))).
      + rewrite (sum_at (fun j => worth i - cost P i j) (a i) (nodes P) Hnd (Hon i Hi E)). lia.
      + intros j _. unfold on. rewrite E. cbn. destruct (a i =? j)%nat; lia. }
  assert (H3 : zsum (fun j => Z.min 0 (opening P j - most j)
                              + zsum (fun i => if on j i then worth i - cost P i j else 0) (containers P)) (nodes P)
               <= zsum (fun j => if is_open j then opening P j else 0) (nodes P)).
  { apply zsum_le. intros j Hj. destruct (is_open j) eqn:E.
    - specialize (Hmost j (on j) Hj (Hfit j Hj)). lia.
    - rewrite (not_open j (fun i => worth i - cost P i j) E). lia. }
  rewrite zsum_add in H3. lia.
Qed.
End ItemPrices.

(** ** The claims of which this is the right form *)

(** "The linear program gives the optimal schedule": it does not. Two nodes of 3, three containers of 2: a half of the third on
    each node fits, so the relaxation is feasible; no assignment is. *)
Definition three_on_two : problem :=
  {| containers := [0; 1; 2]%nat; nodes := [0; 1]%nat; resources := [0]%nat; allowed := fun _ _ => true; cost := fun _ _ => 0;
     opening := fun _ => 0; request := fun _ _ => 2; capacity := fun _ _ => 3; sides := []; price := fun _ _ _ => 0;
     budget := fun _ => 0 |}.

(** Halves of containers on nodes: all placed, each node within its capacity. *)
Definition half_feasible (P : problem) (x : container -> node -> Z) : Prop :=
  (forall i j, 0 <= x i j) /\ (forall i, In i (containers P) -> zsum (x i) (nodes P) = 2)
  /\ (forall j k, In j (nodes P) -> In k (resources P) ->
        zsum (fun i => x i j * request P i k) (containers P) <= 2 * capacity P j k).

Example the_relaxation_is_only_a_bound :
  (exists x, half_feasible three_on_two x) /\ (forall a, ~ feasible three_on_two a).
Proof.
  split.
  - exists (fun i j => match i, j with O, O => 2 | 1%nat, 1%nat => 2 | 2%nat, (O | 1%nat) => 1 | _, _ => 0 end).
    split; [| split].
    + intros i j. destruct i as [| [| [| i]]]; destruct j as [| [| j]]; cbn; lia.
    + intros i [<- | [<- | [<- | []]]]; reflexivity.
    + intros j k [<- | [<- | []]] [<- | []]; cbn; lia.
  - intros a [Hon _ Hw _]. pose proof (Hw 0 0 (or_introl eq_refl) (or_introl eq_refl))%nat as H0.
    pose proof (Hw 1 0 (or_intror (or_introl eq_refl)) (or_introl eq_refl))%nat as H1.
    pose proof (Hon 0 (or_introl eq_refl))%nat as [E0 | [E0 | []]];
      pose proof (Hon 1 (or_intror (or_introl eq_refl)))%nat as [E1 | [E1 | []]];
      pose proof (Hon 2 (or_intror (or_intror (or_introl eq_refl))))%nat as [E2 | [E2 | []]];
      unfold given, here in H0, H1; cbn in H0, H1; rewrite <- ?E0, <- ?E1, <- ?E2 in H0, H1; cbn in H0, H1; lia.
Qed.

(** "Least fragmentation is optimal": it is not. Nodes with 6 and 5 free, containers 3, 3 and 5 in this order: best-fit puts
    the first where least is left, on the 5, and has no room for the last; but all fit. *)
Fixpoint room_of (free : list Z) (j : node) : Z :=
  match free, j with
  | [], _ => 0
  | r :: _, O => r
  | _ :: rest, S j' => room_of rest j'
  end.

Fixpoint take (free : list Z) (j : node) (x : Z) : list Z :=
  match free, j with
  | [], _ => []
  | r :: rest, O => r - x :: rest
  | r :: rest, S j' => r :: take rest j' x
  end.

(** The node with the least room that suffices, the first of equals. *)
Fixpoint tightest (free : list Z) (x : Z) (j : node) : option (node * Z) :=
  match free with
  | [] => None
  | r :: rest =>
      match tightest rest x (S j) with
      | Some (j', r') => if (x <=? r) && (r <=? r') then Some (j, r) else Some (j', r')
      | None => if x <=? r then Some (j, r) else None
      end
  end.

Fixpoint best_fit (free : list Z) (items : list Z) : list (option node) :=
  match items with
  | [] => []
  | x :: rest =>
      match tightest free x O with
      | Some (j, _) => Some j :: best_fit (take free j x) rest
      | None => None :: best_fit free rest
      end
  end.

Definition six_and_five : problem :=
  {| containers := [0; 1; 2]%nat; nodes := [0; 1]%nat; resources := [0]%nat; allowed := fun _ _ => true; cost := fun _ _ => 0;
     opening := fun _ => 0; request := fun i _ => match i with 2%nat => 5 | _ => 3 end;
     capacity := fun j _ => match j with 0%nat => 6 | _ => 5 end; sides := []; price := fun _ _ _ => 0;
     budget := fun _ => 0 |}.

Example least_fragmentation_misses_a_packing :
  best_fit [6; 5] [3; 3; 5] = [Some 1%nat; Some 0%nat; None]
  /\ feasible six_and_five (fun i => match i with 2%nat => 1%nat | _ => 0%nat end).
Proof.
  split; [reflexivity |]. split.
  - intros i [<- | [<- | [<- | []]]]; cbn; auto.
  - reflexivity.
  - intros j k [<- | [<- | []]] [<- | []]; cbn; lia.
  - intros t [].
Qed.
