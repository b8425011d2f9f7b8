(** * G15 replay

    A planner that is a function of its arguments gives the same plan for the same arguments; this needs no proof. What could
    differ between two runs is the order in which the same nodes and containers were read. Heptad orders them by name
    before anything is decided, and this makes the order of reading irrelevant. That the program is such a function is
    checked by bans (no clock, no randomness, no unordered map in core crates) and by tests. *)

From Coq Require Import List Arith Sorting.Permutation Sorting.Sorted Lia.
Import ListNotations.

Section Replay.
Variables object request plan : Type.
Variable name : object -> nat.

Fixpoint insert (x : object) (l : list object) : list object :=
  match l with
  | [] => [x]
  | y :: rest => if name x <=? name y then x :: l else y :: insert x rest
  end.

Definition by_name (l : list object) : list object := fold_right insert [] l.

Definition before (x y : object) : Prop := name x < name y.

Lemma insert_permutes : forall x l, Permutation (insert x l) (x :: l).
Proof.
  intros x; induction l as [| y l IH]; cbn; [apply Permutation_refl |].
  destruct (name x <=? name y); [apply Permutation_refl |].
  apply perm_trans with (y :: x :: l); [apply perm_skip; assumption | apply perm_swap].
Qed.

Lemma by_name_permutes : forall l, Permutation (by_name l) l.
Proof.
  induction l as [| x l IH]; cbn; [constructor |].
  apply perm_trans with (x :: by_name l); [apply insert_permutes | apply perm_skip; assumption].
Qed.

Lemma insert_sorts :
  forall x l, (forall y, In y l -> name y <> name x) -> StronglySorted before l -> StronglySorted before (insert x l).
Proof.
  intros x l; induction l as [| y l IH]; cbn; intros Hne Hs; [repeat constructor |].
  inversion Hs as [| ? ? Hs' Hall]; subst. destruct (Nat.leb_spec (name x) (name y)) as [Hle | Hgt].
  - constructor; [assumption |]. constructor.
    + unfold before. specialize (Hne y (or_introl eq_refl)). lia.
    + rewrite Forall_forall in *. intros z Hz. specialize (Hall z Hz). unfold before in *.
      specialize (Hne y (or_introl eq_refl)). lia.
  - constructor; [apply IH; [intros; apply Hne; right; assumption | assumption] |].
    rewrite Forall_forall in *. intros z Hz.
    apply (Permutation_in _ (insert_permutes x l)) in Hz. destruct Hz as [<- | Hz]; [exact Hgt | apply Hall; assumption].
Qed.

Lemma by_name_sorts : forall l, NoDup (map name l) -> StronglySorted before (by_name l).
Proof.
  induction l as [| x l IH]; cbn; intros H; [constructor |]. inversion H as [| ? ? Hn Hd]; subst.
  apply insert_sorts; [| apply IH; assumption]. intros y Hy E. apply Hn. rewrite <- E.
  apply in_map. apply (Permutation_in _ (by_name_permutes l)). assumption.
Qed.

(** There is only one order. *)
Lemma sorted_is_unique :
  forall a b, StronglySorted before a -> StronglySorted before b -> Permutation a b -> a = b.
Proof.
  induction a as [| x a IH]; intros b Ha Hb Hp; [apply Permutation_nil in Hp; symmetry; assumption |].
  destruct b as [| y b]; [apply Permutation_sym, Permutation_nil in Hp; discriminate |].
  inversion Ha as [| ? ? Ha' Hxa]; inversion Hb as [| ? ? Hb' Hyb]; subst. rewrite Forall_forall in *.
  assert (E : x = y).
  { pose proof (Permutation_in x Hp (or_introl eq_refl)) as [E | Hx]; [symmetry; assumption |].
    pose proof (Permutation_in y (Permutation_sym Hp) (or_introl eq_refl)) as [E | Hy]; [assumption |].
    specialize (Hxa y Hy). specialize (Hyb x Hx). unfold before in *. lia. }
  subst y. f_equal. apply IH; [assumption | assumption |]. exact (Permutation_cons_inv Hp).
Qed.

Theorem order_of_reading_is_irrelevant :
  forall l l', NoDup (map name l) -> Permutation l l' -> by_name l = by_name l'.
Proof.
  intros l l' Hnd Hp. apply sorted_is_unique.
  - apply by_name_sorts. assumption.
  - apply by_name_sorts. apply (Permutation_NoDup (Permutation_map name Hp)). assumption.
  - apply perm_trans with l; [apply by_name_permutes |].
    apply perm_trans with l'; [assumption | apply Permutation_sym, by_name_permutes].
Qed.

(** A planner chooses for one request after the other and remembers what it chose. *)
Variable state : Type.
Variable start : list object -> state.
Variable place : state -> request -> state.
Variable result : state -> plan.

Definition planned (nodes : list object) (requests : list request) : plan :=
  result (fold_left place requests (start (by_name nodes))).

(** G15: the same snapshot, in whatever order it was read, and the same requests give the same plan. *)
Theorem replay :
  forall nodes nodes' requests, NoDup (map name nodes) -> Permutation nodes nodes' ->
  planned nodes requests = planned nodes' requests.
Proof.
  intros nodes nodes' requests Hnd Hp. unfold planned.
  rewrite (order_of_reading_is_irrelevant nodes nodes' Hnd Hp). reflexivity.
Qed.

(** What was planned before does not change when requests are added at the end. *)
Theorem replay_of_a_log :
  forall nodes early late,
  fold_left place (early ++ late) (start (by_name nodes)) =
  fold_left place late (fold_left place early (start (by_name nodes))).
Proof. intros. apply fold_left_app. Qed.
End Replay.
