(** * G4 capacity safety

    The store keeps one row per node (its capacity), one row per node (the sum of what it gave), one row per container (where it
    is bound) and the generation of the present leader. Every row has the revision of its last write. Any number of deployers read
    snapshots, which grow old, and ask any planner, also a wrong one, for changes. What they send is a transaction: the
    revisions that were read, and the new rows, worked out from the snapshot by the rule that refuses what does not fit. The
    network delays, repeats and loses transactions; the store applies one whole or not at all, if every revision compared is
    still the present one. Deployers crash and leaders are replaced between any two steps.

    A host port is a resource of capacity one, and a device one of a thousand thousandths, so "no port is given twice" is an
    instance. Which devices a container gets is chosen when it is bound: a form of what it asks, also chosen by the planner.
    What is proved is this model; the committer, its tests and the check at run time are the tie to the program. *)

From Coq Require Import List Arith Bool Lia.
From Heptad Require Import Sums.
Import ListNotations.

Definition node := nat.
Definition container := nat.
Definition resource := nat.
Definition form := nat.
Definition vector := resource -> nat.

(** What a container asks in each of its forms; never changed once it exists, so that it is no part of the state. *)
Record world := { asks : container -> form -> vector; dims : nat }.

(** A row and the revision of its last write. *)
Record versioned (A : Type) := { value : A; rev : nat }.
Arguments value {A} _.
Arguments rev {A} _.

Record store := {
  capacity : node -> versioned vector;
  given : node -> versioned vector;
  bound : container -> versioned (option (node * form));
  ids : list container;  (** the containers that exist *)
  generation : nat;
  clock : nat;  (** the revision of the last transaction *)
}.

Section Capacity.
Variable W : world.

(** ** What G4 speaks of *)

Definition share (s : store) (n : node) (k : resource) (c : container) : nat :=
  match value (bound s c) with
  | Some (m, f) => if m =? n then asks W c f k else 0
  | None => 0
  end.

(** The sum of the requests of the containers that are bound to a node. *)
Definition load (s : store) (n : node) (k : resource) : nat := sum (share s n k) (ids s).

Definition safe (s : store) : Prop :=
  forall n k, k < dims W -> load s n k <= value (capacity s n) k.

(** ** The rule of one change, as the committer has it *)

Inductive change := Bind (c : container) (n : node) (f : form) | Free (c : container).

Definition subject (o : change) : container := match o with Bind c _ _ => c | Free c => c end.

(** The row that a change touches. *)
Definition place (s : store) (o : change) : option node :=
  match o with
  | Bind _ n _ => Some n
  | Free c => option_map fst (value (bound s c))
  end.

Definition is_bound (s : store) (c : container) : bool :=
  match value (bound s c) with Some _ => true | None => false end.

Definition fits (s : store) (c : container) (n : node) (f : form) : bool :=
  forallb (fun k => value (given s n) k + asks W c f k <=? value (capacity s n) k) (seq 0 (dims W)).

Definition allowed (s : store) (o : change) : bool :=
  existsb (Nat.eqb (subject o)) (ids s) &&
  match o with
  | Bind c n f => negb (is_bound s c) && fits s c n f
  | Free c => is_bound s c
  end.

Definition set {A} (f : nat -> A) (i : nat) (a : A) : nat -> A := fun j => if j =? i then a else f j.

(** One change on a working copy; revisions are those of the transaction, and are given when it is applied. *)
Definition apply (s : store) (o : change) : store :=
  let row n v := set (given s) n {| value := v; rev := rev (given s n) |} in
  let at_node m := set (bound s) (subject o) {| value := m; rev := rev (bound s (subject o)) |} in
  match o, value (bound s (subject o)) with
  | Bind c n f, _ =>
      {| capacity := capacity s; given := row n (fun k => value (given s n) k + asks W c f k); bound := at_node (Some (n, f));
         ids := ids s; generation := generation s; clock := clock s |}
  | Free c, Some (n, f) =>
      {| capacity := capacity s; given := row n (fun k => value (given s n) k - asks W c f k); bound := at_node None;
         ids := ids s; generation := generation s; clock := clock s |}
  | Free _, None => s
  end.

(** All changes of a plan in their order; what is refused is left out, whatever the planner thought. *)
Fixpoint work (s : store) (plan : list change) : store * list (change * option node) :=
  match plan with
  | [] => (s, [])
  | o :: rest =>
      if allowed s o
      then let (s', kept) := work (apply s o) rest in (s', (o, place s o) :: kept)
      else work s rest
  end.

(** ** Transactions *)

Record transaction := {
  sender : nat;  (** the generation of its sender *)
  read : store;  (** the snapshot of which the revisions are compared *)
  result : store;  (** the working copy that has the new rows *)
  changes : list (change * option node);
}.

Definition touches_container (t : transaction) (c : container) : bool :=
  existsb (fun o => subject (fst o) =? c) (changes t).

Definition touches_node (t : transaction) (n : node) : bool :=
  existsb (fun o => match snd o with Some m => m =? n | None => false end) (changes t).

(** Every row that the transaction writes, and the capacity of its nodes, has the revision that was read. *)
Definition valid (t : transaction) (s : store) : Prop :=
  sender t = generation s
  /\ (forall c, touches_container t c = true -> rev (bound s c) = rev (bound (read t) c))
  /\ (forall n, touches_node t n = true ->
        rev (given s n) = rev (given (read t) n) /\ rev (capacity s n) = rev (capacity (read t) n)).

Definition commit (t : transaction) (s : store) : store :=
  let now := S (clock s) in
  {| capacity := capacity s;
     given := fun n => if touches_node t n then {| value := value (given (result t) n); rev := now |} else given s n;
     bound := fun c => if touches_container t c then {| value := value (bound (result t) c); rev := now |} else bound s c;
     ids := ids s;
     generation := generation s;
     clock := now |}.

(** ** The system *)

(** What a deployer remembers: the generation in which it led, and a snapshot. A crash forgets both. *)
Record deployer := { led : option nat; snapshot : option store }.

Record system := {
  state : store;
  memory : nat -> deployer;
  network : list transaction;  (** all that was ever sent: it may arrive at any time, twice, or never *)
}.

Definition with_store (y : system) (s : store) : system := {| state := s; memory := memory y; network := network y |}.

Definition with_memory (y : system) (d : nat) (m : deployer) : system :=
  {| state := state y; memory := set (memory y) d m; network := network y |}.

Definition empty : store :=
  {| capacity := fun _ => {| value := fun _ => 0; rev := 0 |};
     given := fun _ => {| value := fun _ => 0; rev := 0 |};
     bound := fun _ => {| value := None; rev := 0 |};
     ids := []; generation := 0; clock := 0 |}.

Definition initial : system :=
  {| state := empty; memory := fun _ => {| led := None; snapshot := None |}; network := [] |}.

Definition elected (s : store) : store :=
  {| capacity := capacity s; given := given s; bound := bound s; ids := ids s;
     generation := S (generation s); clock := S (clock s) |}.

Definition registered (s : store) (n : node) (v : vector) : store :=
  {| capacity := set (capacity s) n {| value := v; rev := S (clock s) |};
     given := given s; bound := bound s; ids := ids s; generation := generation s; clock := S (clock s) |}.

Definition created (s : store) (c : container) : store :=
  {| capacity := capacity s; given := given s; bound := set (bound s) c {| value := None; rev := S (clock s) |};
     ids := c :: ids s; generation := generation s; clock := S (clock s) |}.

(** A row that is gone has no revision that somebody read while it was there; here its place gets a new one. *)
Definition deleted (s : store) (c : container) : store :=
  {| capacity := capacity s; given := given s; bound := set (bound s) c {| value := None; rev := S (clock s) |};
     ids := remove Nat.eq_dec c (ids s); generation := generation s; clock := S (clock s) |}.

Inductive step : system -> system -> Prop :=
  (** A deployer becomes the leader; the one before does not hear of it. *)
  | elect y d :
      step y {| state := elected (state y);
                memory := set (memory y) d {| led := Some (S (generation (state y))); snapshot := snapshot (memory y d) |};
                network := network y |}
  (** A deployer acts in the generation of the present leader: several may, at the same time. *)
  | join y d : step y (with_memory y d {| led := Some (generation (state y)); snapshot := snapshot (memory y d) |})
  (** A deployer reads. Nothing makes it read again. *)
  | look y d : step y (with_memory y d {| led := led (memory y d); snapshot := Some (state y) |})
  (** A deployer that thinks it leads sends what became of a plan: any list of changes at all. *)
  | send y d g s plan :
      led (memory y d) = Some g -> snapshot (memory y d) = Some s ->
      step y {| state := state y; memory := memory y;
                network :=
                  {| sender := g; read := s; result := fst (work s plan); changes := snd (work s plan) |} :: network y |}
  (** A transaction arrives; it stays in the network, so it may arrive again. *)
  | deliver y t : In t (network y) -> valid t (state y) -> step y (with_store y (commit t (state y)))
  (** A transaction arrives that is not valid any more: nothing happens. *)
  | refuse y t : In t (network y) -> ~ valid t (state y) -> step y y
  | crash y d : step y (with_memory y d {| led := None; snapshot := None |})
  (** A node says what it can give: not less than it gave (the condition of G4). *)
  | register y n v :
      (forall k, k < dims W -> value (given (state y) n) k <= v k) -> step y (with_store y (registered (state y) n v))
  | create y c : ~ In c (ids (state y)) -> step y (with_store y (created (state y) c))
  (** A container without a node is deleted; one that has a node is freed first, if need be a moment before. *)
  | delete y c : value (bound (state y) c) = None -> step y (with_store y (deleted (state y) c)).

Inductive reachable : system -> Prop :=
  | reach_initial : reachable initial
  | reach_step y y' : reachable y -> step y y' -> reachable y'.

(** ** The proof *)

(** What holds in every store and in every working copy of one. *)
Record good (s : store) : Prop := {
  good_ids : NoDup (ids s);
  good_unknown : forall c, ~ In c (ids s) -> value (bound s c) = None;
  good_sums : forall n k, value (given s n) k = load s n k;
  good_room : forall n k, k < dims W -> value (given s n) k <= value (capacity s n) k;
}.

Lemma set_same : forall A (f : nat -> A) i a, set f i a i = a.
Proof. intros. unfold set. rewrite Nat.eqb_refl. reflexivity. Qed.

Lemma set_other : forall A (f : nat -> A) i j a, j <> i -> set f i a j = f j.
Proof. intros. unfold set. apply Nat.eqb_neq in H. rewrite H. reflexivity. Qed.

Lemma is_member : forall c l, existsb (Nat.eqb c) l = true -> In c l.
Proof.
  intros c l H. apply existsb_exists in H. destruct H as (x & Hin & He). apply Nat.eqb_eq in He. subst. assumption.
Qed.

Lemma fits_spec :
  forall s c n f k, fits s c n f = true -> k < dims W -> value (given s n) k + asks W c f k <= value (capacity s n) k.
Proof.
  intros s c n f k H Hk. unfold fits in H. rewrite forallb_forall in H.
  specialize (H k). rewrite in_seq in H. apply Nat.leb_le. apply H. lia.
Qed.

(** The load after one container's binding changed. *)
Lemma load_change :
  forall s s' c n k, NoDup (ids s) -> In c (ids s) -> ids s' = ids s ->
  (forall i, i <> c -> value (bound s' i) = value (bound s i)) ->
  load s' n k + share s n k c = load s n k + share s' n k c.
Proof.
  intros s s' c n k Hnd Hin Hids Hother. unfold load. rewrite Hids.
  rewrite (sum_change (share s' n k) (share s n k) (ids s) c Hnd Hin); [reflexivity |].
  intros i Hi. unfold share. rewrite (Hother i Hi). reflexivity.
Qed.

Lemma apply_other :
  forall s o i, i <> subject o -> value (bound (apply s o) i) = value (bound s i).
Proof.
  intros s o i H. destruct o as [c n f | c]; cbn in *.
  - rewrite set_other by assumption. reflexivity.
  - unfold apply. cbn. destruct (value (bound s c)) as [[m f] |]; cbn; [rewrite set_other by assumption |]; reflexivity.
Qed.

Lemma apply_ids : forall s o, ids (apply s o) = ids s.
Proof. intros s [c n f | c]; unfold apply; cbn; [| destruct (value (bound s c)) as [[? ?] |]]; reflexivity. Qed.

Lemma apply_capacity : forall s o n, capacity (apply s o) n = capacity s n.
Proof. intros s [c m f | c] n; unfold apply; cbn; [| destruct (value (bound s c)) as [[? ?] |]]; reflexivity. Qed.

(** One allowed change keeps what is good. *)
Lemma apply_good : forall s o, good s -> allowed s o = true -> good (apply s o).
Proof.
  intros s o [Hnd Hun Hs Hr] Ha. unfold allowed in Ha. apply andb_prop in Ha. destruct Ha as [Hin Ha].
  apply is_member in Hin.
  pose proof (fun n k =>
    load_change s (apply s o) (subject o) n k Hnd Hin (apply_ids s o) (apply_other s o)) as Hload.
  split.
  - rewrite apply_ids. assumption.
  - intros i Hi. rewrite apply_ids in Hi. rewrite apply_other; [apply Hun; assumption |]. intros ->. contradiction.
  - intros n k. specialize (Hload n k). specialize (Hs n k). destruct o as [c m f | c]; cbn [subject] in *.
    + apply andb_prop in Ha. destruct Ha as [Hb _]. unfold is_bound in Hb.
      unfold share in Hload. cbn in Hload |- *. rewrite set_same in Hload. cbn in Hload.
      destruct (value (bound s c)) as [[m' f'] |] eqn:E; [discriminate |].
      destruct (Nat.eq_dec n m) as [-> | Hne].
      * rewrite set_same. cbn. rewrite Nat.eqb_refl in Hload. lia.
      * rewrite set_other by assumption. apply not_eq_sym, Nat.eqb_neq in Hne. rewrite Hne in Hload. lia.
    + unfold is_bound in Ha. unfold share in Hload. unfold apply in Hload |- *. cbn in Hload |- *.
      destruct (value (bound s c)) as [[m f] |] eqn:E; [| discriminate]. cbn in Hload |- *.
      rewrite set_same in Hload. cbn in Hload.
      destruct (Nat.eq_dec n m) as [-> | Hne].
      * rewrite set_same. cbn. rewrite Nat.eqb_refl in Hload. lia.
      * rewrite set_other by assumption. apply not_eq_sym, Nat.eqb_neq in Hne. rewrite Hne in Hload. lia.
  - intros n k Hk. rewrite apply_capacity. specialize (Hr n k Hk). destruct o as [c m f | c].
    + apply andb_prop in Ha. destruct Ha as [_ Hf]. pose proof (fits_spec s c m f k Hf Hk). cbn.
      destruct (Nat.eq_dec n m) as [-> | Hne]; [rewrite set_same | rewrite set_other by assumption]; cbn; assumption.
    + unfold apply. cbn. destruct (value (bound s c)) as [[m f] |]; cbn; [| assumption].
      destruct (Nat.eq_dec n m) as [-> | Hne]; [rewrite set_same | rewrite set_other by assumption]; cbn; lia.
Qed.

(** *** A plan does the same to two stores that agree on the rows that it touches. *)

Definition container_touched (kept : list (change * option node)) (c : container) : bool :=
  existsb (fun o => subject (fst o) =? c) kept.

Definition node_touched (kept : list (change * option node)) (n : node) : bool :=
  existsb (fun o => match snd o with Some m => m =? n | None => false end) kept.

(** The changes that were kept, done on a store. *)
Fixpoint redo (s : store) (kept : list (change * option node)) : store :=
  match kept with
  | [] => s
  | (o, _) :: rest => redo (apply s o) rest
  end.

Fixpoint all_allowed (s : store) (kept : list (change * option node)) : Prop :=
  match kept with
  | [] => True
  | (o, p) :: rest => allowed s o = true /\ place s o = p /\ all_allowed (apply s o) rest
  end.

Lemma work_is_redo :
  forall plan s, fst (work s plan) = redo s (snd (work s plan)) /\ all_allowed s (snd (work s plan)).
Proof.
  induction plan as [| o rest IH]; intros s; cbn; [split; [reflexivity | exact I] |].
  destruct (allowed s o) eqn:E; [| apply IH].
  specialize (IH (apply s o)). destruct (work (apply s o) rest) as [s' kept]. cbn in *.
  destruct IH as [-> H]. repeat split; assumption.
Qed.

Lemma redo_good : forall kept s, good s -> all_allowed s kept -> good (redo s kept).
Proof.
  induction kept as [| [o p] rest IH]; cbn; intros s Hg Ha; [assumption |].
  destruct Ha as (Ha & _ & Hrest). apply IH; [apply apply_good |]; assumption.
Qed.

(** Two stores agree on the rows that changes touch. *)
Record agree (kept : list (change * option node)) (a b : store) : Prop := {
  agree_ids : forall c, container_touched kept c = true -> In c (ids a) -> In c (ids b);
  agree_bound : forall c, container_touched kept c = true -> value (bound a c) = value (bound b c);
  agree_given : forall n, node_touched kept n = true -> forall k, value (given a n) k = value (given b n) k;
  agree_capacity : forall n, node_touched kept n = true -> forall k, value (capacity a n) k = value (capacity b n) k;
}.

Lemma is_member_back : forall c l, In c l -> existsb (Nat.eqb c) l = true.
Proof. intros. apply existsb_exists. exists c. split; [assumption | apply Nat.eqb_refl]. Qed.

Lemma first_touched : forall o p rest, container_touched ((o, p) :: rest) (subject o) = true.
Proof. intros. cbn. rewrite Nat.eqb_refl. reflexivity. Qed.

Lemma later_container : forall o rest c, container_touched rest c = true -> container_touched (o :: rest) c = true.
Proof. intros. unfold container_touched in *. cbn. rewrite H. apply orb_true_r. Qed.

Lemma later_node : forall o rest n, node_touched rest n = true -> node_touched (o :: rest) n = true.
Proof. intros. unfold node_touched in *. cbn. rewrite H. apply orb_true_r. Qed.

Lemma first_node : forall o n rest, node_touched ((o, Some n) :: rest) n = true.
Proof. intros. cbn. rewrite Nat.eqb_refl. reflexivity. Qed.

Lemma agree_subject :
  forall a b o p rest, agree ((o, p) :: rest) a b -> value (bound a (subject o)) = value (bound b (subject o)).
Proof. intros a b o p rest Hg. exact (agree_bound _ _ _ Hg _ (first_touched o p rest)). Qed.

Lemma agree_place :
  forall a b o p rest, agree ((o, p) :: rest) a b -> place a o = place b o.
Proof.
  intros a b o p rest Hg. pose proof (agree_subject a b o p rest Hg) as H.
  destruct o as [c n f | c]; cbn in *; [reflexivity | rewrite H; reflexivity].
Qed.

Lemma agree_allowed :
  forall a b o p rest, agree ((o, p) :: rest) a b -> place a o = p -> allowed a o = true -> allowed b o = true.
Proof.
  intros a b o p rest Hg Hp Ha. unfold allowed in *. apply andb_prop in Ha. destruct Ha as [Hin Ha].
  apply is_member in Hin.
  rewrite (is_member_back _ _ (agree_ids _ _ _ Hg _ (first_touched o p rest) Hin)). cbn.
  destruct o as [c n f | c]; cbn [subject] in *.
  - cbn in Hp. subst p. apply andb_prop in Ha. destruct Ha as [Hb Hf]. apply andb_true_intro. split.
    + unfold is_bound in *.
      rewrite <- (agree_bound _ _ _ Hg c (first_touched (Bind c n f) (Some n) rest)). assumption.
    + unfold fits in *. rewrite forallb_forall in *. intros k Hk. specialize (Hf k Hk). apply Nat.leb_le.
      apply Nat.leb_le in Hf.
      rewrite <- (agree_given _ _ _ Hg n (first_node _ n rest) k).
      rewrite <- (agree_capacity _ _ _ Hg n (first_node _ n rest) k). assumption.
  - unfold is_bound in *. rewrite <- (agree_bound _ _ _ Hg c (first_touched (Free c) p rest)). assumption.
Qed.

Lemma agree_apply :
  forall a b o p rest, agree ((o, p) :: rest) a b -> place a o = p -> agree rest (apply a o) (apply b o).
Proof.
  intros a b o p rest Hg Hp.
  pose proof (agree_subject a b o p rest Hg) as Hpl. split.
  - intros c Hc. rewrite !apply_ids. apply (agree_ids _ _ _ Hg). apply later_container. assumption.
  - intros c Hc. destruct (Nat.eq_dec c (subject o)) as [-> | Hne].
    + destruct o as [c n f | c]; unfold apply; cbn in *.
      * rewrite !set_same. reflexivity.
      * rewrite <- Hpl. destruct (value (bound a c)) as [[m f] |] eqn:E; cbn.
        -- rewrite !set_same. reflexivity.
        -- rewrite E. assumption.
    + rewrite !apply_other by assumption. apply (agree_bound _ _ _ Hg). apply later_container. assumption.
  - intros n Hn k. pose proof (agree_given _ _ _ Hg n (later_node _ _ _ Hn) k) as Hold.
    destruct o as [c m f | c]; unfold apply; cbn in *.
    + destruct (Nat.eq_dec n m) as [-> | Hne]; [rewrite !set_same | rewrite !set_other by assumption]; cbn; lia.
    + rewrite <- Hpl. destruct (value (bound a c)) as [[m f] |]; cbn; [| assumption].
      destruct (Nat.eq_dec n m) as [-> | Hne]; [rewrite !set_same | rewrite !set_other by assumption]; cbn; lia.
  - intros n Hn k. rewrite !apply_capacity. apply (agree_capacity _ _ _ Hg). apply later_node. assumption.
Qed.

Lemma agree_all_allowed :
  forall kept a b, agree kept a b -> all_allowed a kept -> all_allowed b kept.
Proof.
  induction kept as [| [o p] rest IH]; cbn; intros a b Hg Ha; [exact I |].
  destruct Ha as (Ha & Hp & Hrest). repeat split.
  - apply (agree_allowed a b o p rest); assumption.
  - rewrite <- (agree_place a b o p rest); assumption.
  - apply (IH (apply a o)); [apply (agree_apply a b o p rest) |]; assumption.
Qed.

(** Rows that are not touched stay. *)
Lemma redo_untouched_bound :
  forall kept s c, container_touched kept c = false -> value (bound (redo s kept) c) = value (bound s c).
Proof.
  induction kept as [| [o p] rest IH]; cbn; intros s c H; [reflexivity |].
  apply orb_false_elim in H. destruct H as [Ho H]. apply Nat.eqb_neq in Ho.
  rewrite IH by assumption. apply apply_other. intros ->. apply Ho. reflexivity.
Qed.

Lemma redo_untouched_given :
  forall kept s n, all_allowed s kept -> node_touched kept n = false -> value (given (redo s kept) n) = value (given s n).
Proof.
  induction kept as [| [o p] rest IH]; cbn; intros s n Ha H; [reflexivity |].
  destruct Ha as (_ & Hp & Hrest). apply orb_false_elim in H. destruct H as [Ho H].
  rewrite IH by assumption. destruct o as [c m f | c]; unfold apply; cbn in *.
  - subst p. apply Nat.eqb_neq in Ho. rewrite set_other; [reflexivity | intros ->; apply Ho; reflexivity].
  - destruct (value (bound s c)) as [[m f] |]; cbn in *; [| reflexivity]. subst p.
    apply Nat.eqb_neq in Ho. rewrite set_other; [reflexivity | intros ->; apply Ho; reflexivity].
Qed.

Lemma redo_ids : forall kept s, ids (redo s kept) = ids s.
Proof. induction kept as [| [o p] rest IH]; cbn; intros s; [reflexivity |]. rewrite IH. apply apply_ids. Qed.

Lemma redo_capacity : forall kept s n, capacity (redo s kept) n = capacity s n.
Proof. induction kept as [| [o p] rest IH]; cbn; intros s n; [reflexivity |]. rewrite IH. apply apply_capacity. Qed.

(** Touched rows become the same in both stores. *)
Lemma redo_touched_bound :
  forall kept a b c, (forall c, container_touched kept c = true -> value (bound a c) = value (bound b c)) ->
  (forall c', value (bound a c') = value (bound b c') \/ True) ->
  all_allowed a kept -> container_touched kept c = true ->
  value (bound (redo a kept) c) = value (bound (redo b kept) c).
Proof.
  induction kept as [| [o p] rest IH]; intros a b c Hb Hx Ha Hc; [discriminate |].
  destruct Ha as (_ & Hp & Hrest). cbn [redo].
  assert (Hpl : value (bound a (subject o)) = value (bound b (subject o))) by (apply Hb; exact (first_touched o p rest)).
  assert (Hsame : value (bound (apply a o) (subject o)) = value (bound (apply b o) (subject o))).
  { destruct o as [c' m f | c']; unfold apply; cbn in *; [rewrite !set_same; reflexivity |].
    rewrite <- Hpl. destruct (value (bound a c')) as [[m f] |] eqn:E; cbn; [rewrite !set_same; reflexivity | congruence]. }
  assert (Hb' : forall i, container_touched rest i = true -> value (bound (apply a o) i) = value (bound (apply b o) i)).
  { intros i Hi. destruct (Nat.eq_dec i (subject o)) as [-> | Hne]; [assumption |].
    rewrite !apply_other by assumption. apply Hb. apply later_container. assumption. }
  destruct (container_touched rest c) eqn:E.
  - apply IH; auto.
  - rewrite !redo_untouched_bound by assumption. cbn in Hc. apply orb_prop in Hc. destruct Hc as [Hc | Hc].
    + apply Nat.eqb_eq in Hc. subst c. assumption.
    + unfold container_touched in E. congruence.
Qed.

Lemma redo_given :
  forall kept a b n, agree kept a b -> all_allowed a kept ->
  (forall k, value (given a n) k = value (given b n) k) ->
  forall k, value (given (redo a kept) n) k = value (given (redo b kept) n) k.
Proof.
  induction kept as [| [o p] rest IH]; cbn; intros a b n Hg Ha Hn k; [apply Hn |].
  destruct Ha as (Ha & Hp & Hrest). apply IH; [apply (agree_apply a b o p rest); assumption | assumption |].
  intros k'. specialize (Hn k'). pose proof (agree_subject a b o p rest Hg) as Hpl.
  destruct o as [c m f | c]; unfold apply; cbn in *.
  - destruct (Nat.eq_dec n m) as [-> | Hne]; [rewrite !set_same | rewrite !set_other by assumption]; cbn; lia.
  - rewrite <- Hpl. destruct (value (bound a c)) as [[m f] |]; cbn; [| assumption].
    destruct (Nat.eq_dec n m) as [-> | Hne]; [rewrite !set_same | rewrite !set_other by assumption]; cbn; lia.
Qed.

(** What is good depends on the values alone. *)
Lemma good_values :
  forall a b, ids a = ids b -> (forall c, value (bound a c) = value (bound b c)) ->
  (forall n k, value (given a n) k = value (given b n) k) ->
  (forall n k, value (capacity a n) k = value (capacity b n) k) -> good a -> good b.
Proof.
  intros a b Hi Hb Hg Hc [Hnd Hun Hs Hr]. split.
  - rewrite <- Hi. assumption.
  - intros c Hin. rewrite <- Hb. apply Hun. rewrite Hi. assumption.
  - intros n k. rewrite <- Hg, Hs. unfold load. rewrite Hi. apply sum_ext. intros c _. unfold share. rewrite Hb. reflexivity.
  - intros n k Hk. rewrite <- Hg, <- Hc. apply Hr. assumption.
Qed.

(** *** Snapshots: a row of the same revision has the same value. *)

Record past (old new : store) : Prop := {
  past_good : good old;
  past_clock : clock old <= clock new;
  past_ids : forall c, rev (bound old c) = rev (bound new c) -> In c (ids old) -> In c (ids new);
  past_bound : forall c, rev (bound old c) = rev (bound new c) -> bound old c = bound new c;
  past_given : forall n, rev (given old n) = rev (given new n) -> given old n = given new n;
  past_capacity : forall n, rev (capacity old n) = rev (capacity new n) -> capacity old n = capacity new n;
  past_revs : (forall c, rev (bound old c) <= clock old) /\ (forall n, rev (given old n) <= clock old)
              /\ (forall n, rev (capacity old n) <= clock old);
}.

(** A transaction that was made as [send] makes it. *)
Definition honest (t : transaction) : Prop := result t = redo (read t) (changes t) /\ all_allowed (read t) (changes t).

Record invariant (y : system) : Prop := {
  inv_state : past (state y) (state y);
  inv_memory : forall d s, snapshot (memory y d) = Some s -> past s (state y);
  inv_network : forall t, In t (network y) -> honest t /\ past (read t) (state y);
}.

(** A later store that writes only with new revisions. *)
Record later (a b : store) : Prop := {
  later_clock : clock a < clock b;
  later_ids : forall c, In c (ids a) -> In c (ids b) \/ rev (bound b c) = clock b;
  later_bound : forall c, bound b c = bound a c \/ rev (bound b c) = clock b;
  later_given : forall n, given b n = given a n \/ rev (given b n) = clock b;
  later_capacity : forall n, capacity b n = capacity a n \/ rev (capacity b n) = clock b;
}.

Lemma past_later : forall s a b, past s a -> later a b -> past s b.
Proof.
  intros s a b [Hg Hc Hi Hb Hgi Hca (R1 & R2 & R3)] [Lc Li Lb Lg Lca]. split; auto; try lia.
  - intros c He Hin. specialize (R1 c). destruct (Lb c) as [E | E]; [rewrite E in He | lia].
    destruct (Li c (Hi c He Hin)) as [H | H]; [assumption |]. rewrite E in H. lia.
  - intros c He. destruct (Lb c) as [E | E]; [rewrite E in *; auto |]. specialize (R1 c). lia.
  - intros n He. destruct (Lg n) as [E | E]; [rewrite E in *; auto |]. specialize (R2 n). lia.
  - intros n He. destruct (Lca n) as [E | E]; [rewrite E in *; auto |]. specialize (R3 n). lia.
Qed.

Lemma past_self : forall a b, past a a -> later a b -> good b -> past b b.
Proof.
  intros a b [_ _ _ _ _ _ (R1 & R2 & R3)] [Lc Li Lb Lg Lca] Hgood.
  split; auto. repeat split.
  - intros c. destruct (Lb c) as [E | E]; [rewrite E; specialize (R1 c) |]; lia.
  - intros n. destruct (Lg n) as [E | E]; [rewrite E; specialize (R2 n) |]; lia.
  - intros n. destruct (Lca n) as [E | E]; [rewrite E; specialize (R3 n) |]; lia.
Qed.

Lemma invariant_later :
  forall y s, invariant y -> later (state y) s -> good s -> invariant (with_store y s).
Proof.
  intros y s [Is Im In_] L G. split; cbn.
  - apply (past_self (state y)); assumption.
  - intros d s' E. apply (past_later s' (state y)); [apply (Im d) |]; assumption.
  - intros t Ht. destruct (In_ t Ht) as [Hh Hp]. split; [assumption |]. apply (past_later _ (state y)); assumption.
Qed.

Lemma commit_later : forall t s, later s (commit t s).
Proof.
  intros t s. split; cbn; auto; try lia.
  - intros c. destruct (touches_container t c); [right | left]; reflexivity.
  - intros n. destruct (touches_node t n); [right | left]; reflexivity.
Qed.

(** The heart: a valid transaction, however old its snapshot and whatever its plan, does to the present store what its
    changes do one by one, each of them allowed there. *)
Lemma commit_good :
  forall t s, honest t -> past (read t) s -> good s -> valid t s -> good (commit t s).
Proof.
  intros t s [Hres Hall] Hpast Hgood (_ & Hvc & Hvn).
  assert (Hag : agree (changes t) (read t) s).
  { split.
    - intros c Hc. apply (past_ids _ _ Hpast). symmetry. apply (Hvc c Hc).
    - intros c Hc. rewrite (past_bound _ _ Hpast c); [reflexivity |]. symmetry. apply (Hvc c Hc).
    - intros n Hn k. rewrite (past_given _ _ Hpast n); [reflexivity |]. symmetry. apply (proj1 (Hvn n Hn)).
    - intros n Hn k. rewrite (past_capacity _ _ Hpast n); [reflexivity |]. symmetry. apply (proj2 (Hvn n Hn)). }
  pose proof (agree_all_allowed _ _ _ Hag Hall) as Hall'.
  apply (good_values (redo s (changes t))).
  - rewrite redo_ids. reflexivity.
  - intros c. cbn. unfold touches_container. fold (container_touched (changes t) c).
    destruct (container_touched (changes t) c) eqn:E; cbn.
    + rewrite Hres. symmetry. apply redo_touched_bound; auto. exact (agree_bound _ _ _ Hag).
    + apply redo_untouched_bound. assumption.
  - intros n k. cbn. unfold touches_node. fold (node_touched (changes t) n).
    destruct (node_touched (changes t) n) eqn:E; cbn.
    + rewrite Hres. symmetry. apply redo_given; auto. intros k'. apply (agree_given _ _ _ Hag). assumption.
    + rewrite redo_untouched_given by assumption. reflexivity.
  - intros n k. rewrite redo_capacity. reflexivity.
  - apply redo_good; assumption.
Qed.

Lemma registered_good :
  forall s n v, good s -> (forall k, k < dims W -> value (given s n) k <= v k) -> good (registered s n v).
Proof.
  intros s n v [Hnd Hun Hs Hr] Hv. split; cbn; auto.
  intros m k Hk. destruct (Nat.eq_dec m n) as [-> | Hne]; [rewrite set_same; apply Hv; assumption |].
  rewrite set_other by assumption. apply Hr. assumption.
Qed.

Lemma created_good : forall s c, good s -> ~ In c (ids s) -> good (created s c).
Proof.
  intros s c [Hnd Hun Hs Hr] Hc. split; cbn.
  - constructor; assumption.
  - intros i Hi. destruct (Nat.eq_dec i c) as [-> | Hne]; [rewrite set_same; reflexivity |].
    rewrite set_other by assumption. apply Hun. intros H. apply Hi. right. assumption.
  - intros n k. rewrite Hs. unfold load. cbn. unfold share at 2. cbn. rewrite set_same. cbn.
    apply sum_ext. intros i Hi. unfold share. cbn. rewrite set_other; [reflexivity |]. intros ->. contradiction.
  - assumption.
Qed.

Lemma deleted_good : forall s c, good s -> value (bound s c) = None -> good (deleted s c).
Proof.
  intros s c [Hnd Hun Hs Hr] Hc.
  assert (Hb : forall i, value (bound (deleted s c) i) = value (bound s i)).
  { intros i. cbn. destruct (Nat.eq_dec i c) as [-> | Hne]; [rewrite set_same, Hc | rewrite set_other by assumption]; reflexivity. }
  split; auto.
  - cbn. clear - Hnd. induction (ids s) as [| i l IH]; cbn; [constructor |]. inversion Hnd; subst.
    destruct (Nat.eq_dec c i) as [| Hne]; [apply IH; assumption |]. constructor; [| apply IH; assumption].
    intros Hin. apply in_remove in Hin. tauto.
  - intros i Hi. rewrite Hb. destruct (Nat.eq_dec i c) as [-> | Hne]; [assumption |]. apply Hun. intros Hin.
    apply Hi. apply in_in_remove; assumption.
  - intros n k. change (value (given s n) k = sum (share (deleted s c) n k) (remove Nat.eq_dec c (ids s))). rewrite Hs.
    unfold load. rewrite (sum_ext (share (deleted s c) n k) (share s n k))
      by (intros i _; unfold share; rewrite Hb; reflexivity).
    assert (Hz : share s n k c = 0) by (unfold share; rewrite Hc; reflexivity).
    clear - Hz. induction (ids s) as [| i l IH]; cbn; [reflexivity |].
    destruct (Nat.eq_dec c i) as [<- | Hne]; cbn; lia.
Qed.

Lemma initial_invariant : invariant initial.
Proof.
  assert (Hg : good empty).
  { split; cbn; auto; try lia. constructor. }
  split; cbn; try discriminate; try contradiction.
  split; auto.
Qed.

Lemma step_invariant : forall y y', invariant y -> step y y' -> invariant y'.
Proof.
  intros y y' Hinv Hstep. pose proof Hinv as [Is Im In_]. pose proof (past_good _ _ Is) as Hgood.
  destruct Hstep as [y d | y d | y d | y d g s plan Hg Hs | y t Ht Hv | y t Ht Hv | y d | y n v Hv | y c Hc | y c Hc].
  - assert (L : later (state y) (elected (state y))) by (split; cbn; auto; lia).
    assert (G : good (elected (state y))) by (destruct Hgood; split; cbn; auto).
    split; cbn.
    + apply (past_self (state y)); assumption.
    + intros d' s. destruct (Nat.eq_dec d' d) as [-> | Hne]; [rewrite set_same | rewrite set_other by assumption]; cbn;
        intros E; apply (past_later s (state y)); try assumption; apply (Im _ _ E).
    + intros t Ht. destruct (In_ t Ht) as [Hh Hp]. split; [assumption |]. apply (past_later _ (state y)); assumption.
  - split; cbn; auto. intros d' s.
    destruct (Nat.eq_dec d' d) as [-> | Hne]; [rewrite set_same | rewrite set_other by assumption]; cbn; apply Im.
  - split; cbn; auto. intros d' s.
    destruct (Nat.eq_dec d' d) as [-> | Hne]; [rewrite set_same | rewrite set_other by assumption]; cbn.
    + intros [= <-]. assumption.
    + apply Im.
  - split; cbn; auto. intros t [<- | Ht]; [| apply In_; assumption]. cbn. split; [| apply (Im d); assumption].
    apply work_is_redo.
  - apply invariant_later; [assumption | apply commit_later |].
    destruct (In_ t Ht) as [Hh Hp]. apply commit_good; assumption.
  - assumption.
  - split; cbn; auto. intros d' s.
    destruct (Nat.eq_dec d' d) as [-> | Hne]; [rewrite set_same | rewrite set_other by assumption]; cbn;
      [discriminate | apply Im].
  - apply invariant_later; [assumption | | apply registered_good; assumption].
    split; cbn; auto; try lia. intros m.
    destruct (Nat.eq_dec m n) as [-> | Hne]; [right; rewrite set_same | left; rewrite set_other by assumption]; reflexivity.
  - apply invariant_later; [assumption | | apply created_good; assumption].
    split; cbn; auto; try lia. intros i.
    destruct (Nat.eq_dec i c) as [-> | Hne]; [right; rewrite set_same | left; rewrite set_other by assumption]; reflexivity.
  - apply invariant_later; [assumption | | apply deleted_good; assumption].
    split; cbn; auto; try lia.
    + intros i Hin. destruct (Nat.eq_dec i c) as [-> | Hne]; [right; rewrite set_same; reflexivity |].
      left. apply in_in_remove; assumption.
    + intros i.
      destruct (Nat.eq_dec i c) as [-> | Hne]; [right; rewrite set_same | left; rewrite set_other by assumption]; reflexivity.
Qed.

Lemma reachable_invariant : forall y, reachable y -> invariant y.
Proof.
  intros y H; induction H as [| y y' _ IH Hs]; [exact initial_invariant | exact (step_invariant y y' IH Hs)].
Qed.

(** ** What is promised *)

(** G4: in every reachable state no node gives more than it has, of no resource. *)
Theorem capacity_safety : forall y, reachable y -> safe (state y).
Proof.
  intros y H n k Hk. destruct (past_good _ _ (inv_state _ (reachable_invariant y H))) as [_ _ Hs Hr].
  rewrite <- Hs. apply Hr. assumption.
Qed.

(** The rows of nodes, which the rule looks at, are the sums of what the containers' rows say. *)
Theorem rows_are_sums :
  forall y, reachable y -> forall n k, value (given (state y) n) k = load (state y) n k.
Proof. intros y H. exact (good_sums _ (past_good _ _ (inv_state _ (reachable_invariant y H)))). Qed.

(** What a leader sent changes nothing once another was elected, whenever it arrives. *)
Theorem stale_leaders_change_nothing :
  forall y t, sender t < generation (state y) -> ~ valid t (state y).
Proof. intros y t H (E & _). lia. Qed.

(** What arrives twice is applied once. *)
Theorem repeated_transactions_change_nothing :
  forall y t c, reachable y -> touches_container t c = true -> valid t (state y) -> ~ valid t (commit t (state y)).
Proof.
  intros y t c Hr Hc (_ & Hv & _) (_ & Hv' & _).
  pose proof (Hv c Hc) as E. pose proof (Hv' c Hc) as E'. cbn in E'. rewrite Hc in E'. cbn in E'.
  pose proof (past_revs _ _ (inv_state _ (reachable_invariant y Hr))) as (R & _). specialize (R c). lia.
Qed.

End Capacity.

(** ** The conditions matter *)

(** Without the comparison of revisions two deployers with the same snapshot exceed a node: each adds 3 to a node of 5. *)
Definition small : world := {| asks := fun _ _ _ => 3; dims := 1 |}.

Definition two_waiting : store :=
  {| capacity := fun _ => {| value := fun _ => 5; rev := 1 |};
     given := fun _ => {| value := fun _ => 0; rev := 0 |};
     bound := fun _ => {| value := None; rev := 2 |};
     ids := [0; 1]; generation := 1; clock := 2 |}.

Definition sent (c : container) : transaction :=
  {| sender := 1; read := two_waiting; result := fst (work small two_waiting [Bind c 0 0]);
     changes := snd (work small two_waiting [Bind c 0 0]) |}.

Example uncompared_commits_exceed :
  load small (commit (sent 1) (commit (sent 0) two_waiting)) 0 0 = 6 /\ ~ valid (sent 1) (commit (sent 0) two_waiting).
Proof.
  split; [reflexivity |]. intros (_ & _ & H). specialize (H 0 eq_refl). cbn in H. destruct H as [H _]. discriminate.
Qed.

(** ** The model is not empty *)

(** What may follow a system. *)
Inductive leads (W : world) (y : system) : system -> Prop :=
  | leads_nowhere : leads W y y
  | leads_on y' y'' : leads W y y' -> step W y' y'' -> leads W y y''.

(** What a deployer that leads since generation 1 sends after it has read. *)
Definition reads (y : system) : system :=
  with_memory y 0 {| led := led (memory y 0); snapshot := Some (state y) |}.

Definition message (y : system) (o : change) : transaction :=
  {| sender := 1; read := state y; result := fst (work small (state y) [o]); changes := snd (work small (state y) [o]) |}.

Definition sends (y : system) (o : change) : system :=
  {| state := state y; memory := memory y; network := message y o :: network y |}.

Definition registers : system := with_store initial (registered empty 0 (fun _ => 5)).
Definition creates : system := with_store registers (created (state registers) 0).
Definition elects : system :=
  {| state := elected (state creates); memory := set (memory creates) 0 {| led := Some 1; snapshot := None |};
     network := [] |}.
Definition binds : system :=
  with_store (sends (reads elects) (Bind 0 0 0)) (commit (message elects (Bind 0 0 0)) (state elects)).
Definition frees : system :=
  with_store (sends (reads binds) (Free 0)) (commit (message binds (Free 0)) (state binds)).
Definition deletes : system := with_store frees (deleted (state frees) 0).

(** What was sent in the present generation on what is read now is valid. *)
Lemma just_read_is_valid : forall y o, generation (state y) = 1 -> valid (message y o) (state y).
Proof. intros y o H. unfold valid. cbn [sender message read]. rewrite H. auto. Qed.

Lemma does : forall y o, led (memory y 0) = Some 1 -> generation (state y) = 1 ->
  leads small y (with_store (sends (reads y) o) (commit (message y o) (state y))).
Proof.
  intros y o Hl Hg.
  assert (Hs : step small (reads y) (sends (reads y) o)).
  { apply (send small (reads y) 0 1 (state y) [o]); [exact Hl | reflexivity]. }
  assert (Hd : step small (sends (reads y) o) (with_store (sends (reads y) o) (commit (message y o) (state y)))).
  { apply (deliver small (sends (reads y) o) (message y o)); [left; reflexivity | exact (just_read_is_valid y o Hg)]. }
  exact (leads_on _ _ _ _ (leads_on _ _ _ _ (leads_on _ _ _ _ (leads_nowhere _ y) (look small y 0)) Hs) Hd).
Qed.

Lemma leads_reachable : forall W y y', reachable W y -> leads W y y' -> reachable W y'.
Proof.
  intros W y y' Hr Hl. induction Hl as [| y' y'' _ IH Hs]; [assumption |]. exact (reach_step W y' y'' IH Hs).
Qed.

(** A container is bound and its node gives what it asks; later it is freed and deleted, and the node gives nothing. *)
Theorem bindings_and_deletions_are_reachable :
  exists bound_ gone,
    reachable small bound_ /\ value (bound (state bound_) 0) = Some (0, 0) /\ load small (state bound_) 0 0 = 3
    /\ leads small bound_ gone /\ ids (state gone) = [] /\ load small (state gone) 0 0 = 0
    /\ value (given (state gone) 0) 0 = 0.
Proof.
  exists binds, deletes. repeat split.
  - apply (leads_reachable small elects); [| apply does; reflexivity].
    apply reach_step with (y := creates); [| apply (elect small creates 0)].
    apply reach_step with (y := registers); [| apply (create small registers 0); cbn; auto].
    apply reach_step with (y := initial); [apply reach_initial |].
    apply (register small initial 0 (fun _ => 5)). cbn. lia.
  - apply leads_on with (y' := frees); [apply does; reflexivity |]. apply (delete small frees 0). reflexivity.
Qed.
